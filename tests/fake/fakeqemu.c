/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <dirent.h>
#include <string.h>

#include "fakeqemu.h"
#include "gpuvm/parse.h"
#include "gpuvm/strv.h"

static struct strv versions;
static struct qemu_info *infos; /* of each version */

static const char *folder(char buf[512])
{
	const char *dir = getenv("GPUVM_FIXTURES");

	snprintf(buf, 512, "%s/qemu", dir ? dir : "tests/fixtures");
	return buf;
}

static int is_recording(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return n > 5 && strcmp(d->d_name + n - 5, ".json") == 0;
}

static void load(const char *version, struct qemu_info *ret)
{
	char dir[512];
	AUTO_FREE char *path = xasprintf("%s/%s.json", folder(dir), version), *text = NULL;
	struct err e = { 0 };

	if (read_text_file(path, QEMU_ANSWERS_MAX, &text) < 0 || qemu_info_from_text(text, strlen(text), ret, &e) < 0) {
		fprintf(stderr, "fake_qemu: %s: %s\n", path, *e.msg ? e.msg : "cannot be read");
		abort();
	}
	ret->path = xstrdup("/usr/bin/qemu-system-x86_64");
}

const char *const *fake_qemu_versions(void)
{
	struct dirent **names = NULL;
	char dir[512];
	int n;

	if (versions.n)
		return (const char *const *)versions.v;
	n = scandir(folder(dir), &names, is_recording, versionsort);
	if (n <= 0) {
		fprintf(stderr, "fake_qemu: there are no recorded answers in '%s'\n", dir);
		abort();
	}
	for (int i = 0; i < n; i++) {
		names[i]->d_name[strlen(names[i]->d_name) - 5] = '\0';
		strv_push(&versions, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	infos = xcalloc(versions.n, sizeof(*infos));
	return (const char *const *)versions.v;
}

struct qemu_info fake_qemu(const char *version)
{
	size_t len = strlen(version);

	fake_qemu_versions();
	for (size_t i = versions.n; i-- > 0;) {
		const char *v = versions.v[i];

		if (strncmp(v, version, len) != 0 || (v[len] && v[len] != '.'))
			continue;
		if (!infos[i].path)
			load(v, &infos[i]);
		return infos[i];
	}
	fprintf(stderr, "fake_qemu: no QEMU %s is recorded\n", version);
	abort();
}
