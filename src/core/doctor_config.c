/* SPDX-License-Identifier: GPL-2.0-or-later */
/* doctor_config.c - PCI configuration space: ACS, ATS, resizable BARs (PCI Express 7.7.11, 10.5.1, 7.8.6). */
#include "gpuvm/doctor.h"

#define EXT_START 0x100
#define CAP_ACS   0x000d
#define CAP_ATS   0x000f
#define CAP_REBAR 0x0015
#define MAX_STEPS 480 /* as many as fit: a damaged list may be a circle */

static unsigned int get16(const uint8_t *c, size_t at)
{
	return c[at] | (unsigned int)c[at + 1] << 8;
}

static uint32_t get32(const uint8_t *c, size_t at)
{
	return get16(c, at) | (uint32_t)get16(c, at + 2) << 16;
}

/* Sizes it can have are bits 4 to 31, of 1 MiB and up; what it has is 2^N MiB. */
static void read_resizable(const uint8_t *c, size_t n, size_t at, struct doctor_func *ret)
{
	int count = at + 12 <= n ? (int)(get32(c, at + 8) >> 5 & 7) : 0;

	for (int i = 0; i < count && i < DOCTOR_RESIZABLE && at + 12 + 8 * (size_t)i <= n; i++) {
		uint32_t can = get32(c, at + 4 + 8 * (size_t)i) >> 4, control = get32(c, at + 8 + 8 * (size_t)i);
		unsigned int size = control >> 8 & 0x3f;

		if (!can || size > 40)
			continue;
		ret->resizable[ret->n_resizable].bar = (int)(control & 7);
		ret->resizable[ret->n_resizable].bytes = UINT64_C(1) << (20 + size);
		ret->resizable[ret->n_resizable++].max_bytes = UINT64_C(1) << (20 + 31 - __builtin_clz(can));
	}
}

static void read_extended(const uint8_t *c, size_t n, struct doctor_func *ret)
{
	size_t at = EXT_START;

	for (int steps = 0; steps < MAX_STEPS && at >= EXT_START && at + 8 <= n; steps++) {
		unsigned int id = get16(c, at);

		if (id == CAP_ACS) {
			ret->acs = true;
			ret->acs_can = (uint16_t)get16(c, at + 4);
			ret->acs_control = (uint16_t)get16(c, at + 6);
			ret->acs_offset = (unsigned int)at + 6;
		} else if (id == CAP_ATS) {
			ret->ats = true;
			ret->ats_control = (uint16_t)get16(c, at + 6);
		} else if (id == CAP_REBAR && !ret->n_resizable) {
			read_resizable(c, n, at, ret);
		}
		at = get16(c, at + 2) >> 4 & ~3u;
	}
}

void doctor_read_config(const uint8_t *config, size_t n, struct doctor_func *ret)
{
	/* All ones: nobody answers, which the probe says. */
	if (n < 64 || pci_config_is_dead(config))
		return;
	ret->head = true;
	/* Two kinds of header: bridges have two BARs. The one behind a 64-bit BAR is its upper half. */
	for (unsigned int i = 0; i < ((config[14] & 0x7f) == 0 ? 6u : 2u); i++) {
		if ((config[0x10 + 4 * i] & 7) != 4)
			continue;
		ret->bars_64 |= 1u << i;
		i++;
	}
	ret->config = n > EXT_START;
	if (ret->config)
		read_extended(config, n, ret);
}

const char *acs_text(uint16_t bits, char buf[ACS_TEXT])
{
	static const char *const names[] = { "SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans" };
	size_t len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		len += (size_t)snprintf(buf + len, ACS_TEXT - len, "%s%s%c", i ? " " : "", names[i], bits >> i & 1 ? '+' : '-');
	return buf;
}
