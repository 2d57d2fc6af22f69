/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>

#include "gpuvm/acs.h"
#include "gpuvm/sysfs.h"

static ssize_t read_config(const struct sysfs *s, const struct pci_addr *a, uint8_t config[DOCTOR_CONFIG_SIZE])
{
	char bdf[PCI_ADDR_STR];

	return sysfs_read_bytes(s, config, DOCTOR_CONFIG_SIZE, "/sys/bus/pci/devices/%s/config", pci_addr_format(a, bdf));
}

struct doctor_func *acs_read(const char *root, const struct topology *host)
{
	struct doctor_func *v = xcalloc(host->n_funcs, sizeof(*v));
	const struct sysfs s = { .root = root };
	uint8_t config[DOCTOR_CONFIG_SIZE];

	for (size_t i = 0; i < host->n_funcs; i++) {
		const struct pci_func *f = &host->funcs[i];
		ssize_t n;

		if (f->role != ROLE_BRIDGE && (f->role != ROLE_NIC || f->is_vf))
			continue;
		n = read_config(&s, &f->addr, config);
		if (n > 0)
			doctor_read_config(config, (size_t)n, &v[i]);
	}
	return v;
}

/* As read_config(), or -ENODEV if nobody answers, and no less than @want bytes. */
static int read_alive(const struct sysfs *s, const struct pci_addr *a, size_t want, uint8_t config[DOCTOR_CONFIG_SIZE], size_t *ret_n, struct err *e)
{
	ssize_t n = read_config(s, a, config);
	char bdf[PCI_ADDR_STR];

	pci_addr_format(a, bdf);
	if (n == -ENOENT || (n >= PCI_CONFIG_HEAD && pci_config_is_dead(config)))
		return err_set(e, -ENODEV, "%s %s", bdf, n < 0 ? "is gone" : "does not answer: its configuration space reads all ones");
	if (n < 0)
		return err_sys(e, (int)n, "read the configuration space of %s", bdf);
	if ((size_t)n < want)
		return err_set(e, -EIO, "the configuration space of %s can be read up to byte %zd only", bdf, n);
	*ret_n = (size_t)n;
	return 0;
}

int acs_get(const struct sysfs *s, const struct pci_addr *a, unsigned int offset, uint16_t *ret, struct err *e)
{
	uint8_t config[DOCTOR_CONFIG_SIZE];
	size_t n;
	int r = offset > DOCTOR_CONFIG_SIZE - 2 ? err_set(e, -EINVAL, "no register at 0x%x", offset) : read_alive(s, a, offset + 2, config, &n, e);

	if (r == 0)
		*ret = (uint16_t)(config[offset] | config[offset + 1] << 8);
	return r;
}

int acs_set(const struct sysfs *s, const struct pci_addr *a, unsigned int offset, uint16_t value, struct err *e)
{
	char bdf[PCI_ADDR_STR];
	uint16_t now = 0;
	int r = sysfs_store_word(s, e, offset, value, "/sys/bus/pci/devices/%s/config", pci_addr_format(a, bdf));

	if (r == 0)
		r = acs_get(s, a, offset, &now, e);
	if (r == 0 && now != value)
		r = err_set(e, -EIO, "ACSCtl of %s is 0x%04x after 0x%04x was written", bdf, now, value);
	if (r == -EPERM || r == -EACCES)
		err_set(e, r, "ACSCtl of %s: the kernel does not let its configuration space be written; it is locked down (Secure Boot; "
			      "/sys/kernel/security/lockdown tells), or this is not root: [pcie] acs = keep does without",
			bdf);
	if (r < 0)
		e->word = "acs-write-refused";
	return r;
}

int acs_get_ats(const struct sysfs *s, const struct pci_addr *a, bool *ret_offered, bool *ret_on, struct err *e)
{
	uint8_t config[DOCTOR_CONFIG_SIZE];
	struct doctor_func x = { 0 };
	size_t n = 0;
	int r = read_alive(s, a, 0, config, &n, e);

	if (r < 0)
		return r;
	doctor_read_config(config, n, &x);
	*ret_offered = x.ats;
	*ret_on = x.ats && x.ats_control & ATS_ENABLE;
	return 0;
}
