/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mkhost.c - see mkhost.h for the language.
 *
 * How it works: the description is read into the structs of mkhost_priv.h (mkhost_parse.c), then each part of the trees
 * is written from them (mkhost_cpu.c, mkhost_pci.c, mkhost_use.c). */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fake/mkhost.h"
#include "tests/fake/mkhost_priv.h"

static void mk_clear(struct mk *m)
{
	for (size_t i = 0; i < m->n_kinds; i++) {
		free(m->kinds[i].vendor_name);
		free(m->kinds[i].device_name);
	}
	for (size_t i = 0; i < m->n_devs; i++)
		free(m->devs[i].path);
	for (size_t i = 0; i < m->n_blocks; i++)
		free(m->blocks[i].path);
	free(m->kinds);
	free(m->devs);
	free(m->blocks);
	free(m->buses);
	free(m->nodes);
	strv_clear(&m->late);
	free(m->late_lines);
	free(m->mountinfo);
	free(m->swaps);
	free(m->route);
	free(m->inet6);
	if (m->root >= 0)
		close(m->root);
}

static int build(struct mk *m, FILE *in, const char *dir)
{
	if (mk_read_description(m, in) < 0)
		return m->e->code;
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_sys(m->e, -errno, "mkdir '%s'", dir);
	m->root = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (m->root < 0)
		return err_sys(m->e, -errno, "open '%s'", dir);
	if (mk_write_cpus(m) < 0 || mk_write_nodes(m) < 0 || mk_write_pci(m) < 0 || mk_write_late(m) < 0 ||
	    mk_write_proc(m) < 0 || mk_write_misc(m) < 0)
		return m->e->code;
	return 0;
}

static int build_from(FILE *in, const char *file, const char *dir, struct err *e)
{
	struct mk m = { .root = -1,
			.e = e,
			.file = file,
			.name = "fixture",
			.kernel = "6.8.0-90-generic",
			.machine_id = "0123456789abcdef0123456789abcdef",
			.iommu = "off",
			.cpu_vendor = "GenuineIntel",
			.threads = 1,
			.phys_bits = 46,
			.next_address = UINT64_C(0x200000000000),
			.next_ifindex = 1 };
	int r = build(&m, in, dir);

	mk_clear(&m);
	return r;
}

int mkhost_build(const char *description, const char *dir, struct err *e)
{
	AUTO_FCLOSE FILE *in = fopen(description, "re");

	if (!in)
		return err_sys(e, -errno, "open '%s'", description);
	return build_from(in, description, dir, e);
}

/* Thousands of small files: in memory if that can be. */
static const char *temp_folder(void)
{
	const char *tmp = getenv("TMPDIR");

	if (tmp && *tmp)
		return tmp;
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static char *build_in_temp(FILE *in, const char *file)
{
	AUTO_FREE char *dir = xasprintf("%s/gpuvm-host-XXXXXX", temp_folder());
	struct err e = { 0 };

	if (!mkdtemp(dir)) {
		perror(dir);
		return NULL;
	}
	if (build_from(in, file, dir, &e) < 0) {
		fprintf(stderr, "mkhost: %s\n", e.msg);
		mkhost_remove(STEAL_PTR(dir));
		return NULL;
	}
	return STEAL_PTR(dir);
}

char *mkhost_fixture(const char *name)
{
	const char *fixtures = getenv("GPUVM_FIXTURES");
	AUTO_FREE char *path = xasprintf("%s/%s.host", fixtures ? fixtures : "tests/fixtures", name);
	AUTO_FCLOSE FILE *in = fopen(path, "re");

	if (!in) {
		perror(path);
		return NULL;
	}
	return build_in_temp(in, path);
}

char *mkhost_text(const char *text)
{
	AUTO_FCLOSE FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

	return in ? build_in_temp(in, "text") : NULL;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void mkhost_remove(char *dir)
{
	if (!dir)
		return;
	nftw(dir, remove_entry, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	free(dir);
}
