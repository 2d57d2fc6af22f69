/* SPDX-License-Identifier: GPL-2.0-or-later */
/* probe_source.c - a machine by whatever name it comes: here, a folder, a tar, an XML. */
#include "gpuvm/capture.h"
#include "gpuvm/probe.h"

int probe_source(const char *root, const char *xml, struct topology *ret, struct err *e)
{
	char *unpacked = NULL;
	int r;

	if (xml)
		return probe_topology_xml(xml, ret, e);
	r = capture_resolve(root, &unpacked, e);
	if (r < 0)
		return r;
	if (!unpacked)
		return probe_host(root, ret, e);
	/* A topology stands alone: the files are not needed any more. */
	r = probe_host(unpacked, ret, e);
	if (r == 0)
		snprintf(ret->root, sizeof(ret->root), "%s", root);
	else
		err_wrap(e, "'%s' is not a capture", root);
	capture_remove(unpacked);
	return r;
}
