/* SPDX-License-Identifier: GPL-2.0-or-later */
/* disk_lock.c - has a QEMU a disk open in a way that ours would be refused?
 *
 * QEMU has locks on single bytes of each image (block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE): who uses permission n has byte 100 + n, who
 * does not let others use it byte 200 + n. They are locks of an open file (fcntl(2), F_OFD_SETLK), which have no owner that the kernel would name. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "gpuvm/parse.h"
#include "image_priv.h"

enum { USED = 100, NOT_SHARED = 200 };
enum { CONSISTENT_READ = 0, WRITE = 1, RESIZE = 3 }; /* BLK_PERM_ (include/block/block-common.h) */

/* A file system without locks has none. */
static bool is_locked(int fd, off_t at)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };

	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

bool disk_is_locked(int fd, bool writes)
{
	return is_locked(fd, USED + WRITE) || is_locked(fd, USED + RESIZE) || is_locked(fd, NOT_SHARED + CONSISTENT_READ) ||
	       (writes && is_locked(fd, NOT_SHARED + WRITE));
}

/* Without asking a server for what is known: one that does not answer would keep us. */
static bool same_file(int dir, const char *name, const struct stat *st)
{
	struct statx x;

	return statx(dir, name, AT_STATX_DONT_SYNC, STATX_INO, &x) == 0 && x.stx_ino == st->st_ino && makedev(x.stx_dev_major, x.stx_dev_minor) == st->st_dev;
}

static bool has_open(int pid, const struct stat *st)
{
	AUTO_FREE char *path = xasprintf("/proc/%d/fd", pid);
	AUTO_CLOSEDIR DIR *d = opendir(path);
	struct dirent *f;

	while (d && (f = readdir(d)))
		if (f->d_name[0] != '.' && same_file(dirfd(d), f->d_name, st))
			return true;
	return false;
}

size_t disk_openers(int fd, int **ret)
{
	AUTO_CLOSEDIR DIR *d = opendir("/proc");
	struct dirent *f;
	struct stat st;
	size_t n = 0;

	*ret = NULL;
	if (fstat(fd, &st) < 0)
		return 0;
	while (d && (f = readdir(d))) {
		AUTO_FREE char *path = xasprintf("/proc/%s/comm", f->d_name), *comm = NULL;
		uint64_t pid;

		/* qemu-system-x86, qemu-img, qemu-nbd, qemu-storage-da; RHEL's is qemu-kvm. */
		if (parse_u64(f->d_name, 1, INT32_MAX, &pid) == 0 && read_text_file(path, 64, &comm) == 0 && strstr(comm, "qemu") && has_open((int)pid, &st))
			*PUSH_ZEROED(*ret, n) = (int)pid;
	}
	return n;
}
