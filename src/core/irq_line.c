/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "gpuvm/irq.h"

/* "3](" or "(": what is between a name and the address. */
static const char *skip_vector(const char *p, bool msi)
{
	if (msi && *p++ != '[')
		return NULL;
	if (msi) {
		size_t digits = strspn(p, "0123456789");

		if (!digits || p[digits] != ']')
			return NULL;
		p += digits + 1;
	}
	return *p == '(' ? p + 1 : NULL;
}

/* "vfio-msix[3](0000:17:00.0)" and nothing behind it. */
static bool parse_action(const char *p, struct pci_addr *ret)
{
	static const struct {
		const char *name;
		bool msi;
	} kinds[] = { { "vfio-msix", true }, { "vfio-msi", true }, { "vfio-intx", false } };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t len = strlen(kinds[i].name);
		const char *from = strncmp(p, kinds[i].name, len) == 0 ? skip_vector(p + len, kinds[i].msi) : NULL;
		size_t addr = from ? strcspn(from, ")") : 0;
		char bdf[PCI_ADDR_STR];

		if (!from || addr >= sizeof(bdf) || from[addr] != ')' || from[addr + 1 + strspn(from + addr + 1, " \n")])
			continue;
		memcpy(bdf, from, addr);
		bdf[addr] = '\0';
		return parse_pci_addr(bdf, ret) == 0;
	}
	return false;
}

/* " 190:   0   17  IR-PCI-MSIX-0000:17:00.0    0-edge      vfio-msix[0](0000:17:00.0)": a count for each CPU, of which there may be
 * hundreds, then chip and line of the interrupt, then who has asked for it, with ", " between several. */
bool irq_parse_line(const char *line, struct irq *ret)
{
	char number[12];
	size_t digits;
	struct irq irq;
	const char *p;

	line += strspn(line, " ");
	digits = strspn(line, "0123456789");
	p = strstr(line, " vfio-");
	if (digits >= sizeof(number) || line[digits] != ':' || !p || p[-1] == ',')
		return false;
	memcpy(number, line, digits);
	number[digits] = '\0';
	if (parse_int(number, 0, INT_MAX, &irq.nr) < 0 || !parse_action(p + 1, &irq.dev))
		return false;
	*ret = irq;
	return true;
}
