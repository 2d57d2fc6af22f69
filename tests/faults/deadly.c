/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <signal.h>

#include "tests/faults/deadly.h"

void deadly_moment(struct deadly *d)
{
	if (++d->seen == d->at)
		raise(SIGKILL);
}

static int deadly_write(void *ctx, const char *path, const char *value)
{
	struct deadly *d = ctx;
	bool now = ++d->seen == d->at;
	int r;

	if (now && !d->late)
		raise(SIGKILL);
	r = d->k->sys.write(d->k->sys.ctx, path, value);
	if (now)
		raise(SIGKILL);
	return r;
}

static int deadly_write_word(void *ctx, const char *path, unsigned int offset, uint16_t value)
{
	struct deadly *d = ctx;
	bool now = ++d->seen == d->at;
	int r;

	if (now && !d->late)
		raise(SIGKILL);
	r = d->k->sys.write_word(d->k->sys.ctx, path, offset, value);
	if (now)
		raise(SIGKILL);
	return r;
}

struct sysfs deadly_sysfs(struct deadly *d)
{
	return (struct sysfs){ .root = d->k->sys.root, .write = deadly_write, .write_word = deadly_write_word, .ctx = d, .serial = true };
}
