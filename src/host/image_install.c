/* SPDX-License-Identifier: GPL-2.0-or-later */
/* image_install.c - a new image, or a new file for one that there is.
 *
 * How it works: FILE is looked at, so that what cannot be an image is refused before gigabytes are copied; then it is copied under a temporary name, without
 * the lock; then the copy is judged, as FILE may have changed since; then, with the lock, it gets its name, and the record
 * names it.  Signals that would end us are held back meanwhile and asked for between two blocks. */
#include <errno.h>
#include <fcntl.h>
#include <gcrypt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "gpuvm/lazy.h"
#include "gpuvm/log.h"
#include "gpuvm/parse.h"
#include "image_priv.h"

#define BUFFER      (1UL << 20)
#define BLOCK       4096 /* the least that a file system has as a hole */
#define SHA256_HEX  64
#define BAR_WIDTH   24
#define PROGRESS_MS 200
#define MIB         (UINT64_C(1) << 20)
#define GIB         (double)(UINT64_C(1) << 30)

#define GCRYPT_CALLS(X) \
	X(gcry_check_version) X(gcry_control) X(gcry_md_close) X(gcry_md_open) X(gcry_md_read) X(gcry_md_write) X(gcry_strerror)

static struct {
	GCRYPT_CALLS(LAZY_POINTER)
} gcrypt;
static const char *const gcrypt_names[] = { GCRYPT_CALLS(LAZY_NAME) };

struct install {
	const char *statedir;
	const struct image_users *users;
	const struct image_install *opt;
	char *dir;
	char *name;
	struct stat st;       /* of FILE */
	int in, stop_fd;
	struct image_temp temp;
	struct image image;   /* what is being made */
};

/* --- signals ------------------------------------------------------------------------------------------------------- */

/* Those that are ignored (nohup) stay so. */
static int hold_signals(sigset_t *ret_old, struct err *e)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction now;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (sigaction(ends[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
			sigaddset(&set, ends[i]);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return err_sys(e, -errno, "signalfd");
	sigprocmask(SIG_BLOCK, &set, ret_old);
	return fd;
}

/* One that has come was our end already: it must not be another one behind. */
static void release_signals(int fd, const sigset_t *old)
{
	struct signalfd_siginfo info;

	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		;
	close(fd);
	sigprocmask(SIG_SETMASK, old, NULL);
}

static int check_stop(const struct install *in, struct err *e)
{
	struct pollfd p = { .fd = in->stop_fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 ? err_set(e, -EINTR, "stopped by a signal; nothing of it is left") : 0;
}

/* --- looking at it ------------------------------------------------------------------------------------------------------ */

static const char *kind_of(mode_t mode)
{
	return S_ISDIR(mode) ? "a folder" : S_ISBLK(mode) || S_ISCHR(mode) ? "a device" : S_ISFIFO(mode) ? "a FIFO" : "not a regular file";
}

static int open_source(struct install *in, struct err *e)
{
	/* Opening a FIFO would wait for a writer. */
	in->in = open(in->opt->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (in->in < 0 || fstat(in->in, &in->st) < 0)
		return err_sys(e, -errno, "'%s'", in->opt->file);
	if (!S_ISREG(in->st.st_mode))
		return err_set(e, S_ISDIR(in->st.st_mode) ? -EISDIR : -EINVAL, "'%s' is %s; an image is a file", in->opt->file, kind_of(in->st.st_mode));
	return 0;
}

/* Is it an image? @path is what is read, @said what it is called in messages. */
static int inspect(int fd, const char *path, const char *said, struct disk_info *ret, bool *ret_boots, struct err *e)
{
	char head[IMAGE_HEAD];
	ssize_t n = pread(fd, head, sizeof(head), 0);
	struct disk_info d = { 0 };
	struct stat st;
	int r;

	if (n < 0 || fstat(fd, &st) < 0)
		return err_sys(e, -errno, "read '%s'", said);
	r = image_judge_head(said, head, (size_t)n, e);
	if (r == 0)
		r = disk_info_read(path, NULL, &d, e);
	if (r == 0)
		r = image_judge(said, &d, (uint64_t)st.st_size, e);
	if (r < 0) {
		disk_info_clear(&d);
		return r;
	}
	*ret_boots = image_head_boots(head, (size_t)n);
	*ret = d;
	return 0;
}

static int look_at_source(struct install *in, struct err *e)
{
	struct disk_info d = { 0 };
	bool boots = true;
	int r = inspect(in->in, in->opt->file, in->opt->file, &d, &boots, e);

	if (r == 0 && strcmp(d.format, "raw") == 0 && !boots)
		log_warning("'%s' is taken for a raw disk, but has no boot sector: is it a disk image?", in->opt->file);
	disk_info_clear(&d);
	return r;
}

/* --- the copy --------------------------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void show_progress(const struct install *in, uint64_t done, uint64_t *last_ms)
{
	uint64_t now = now_ms(), total = (uint64_t)in->st.st_size;
	AUTO_FREE char *bar = NULL;

	if (now - *last_ms < PROGRESS_MS)
		return;
	*last_ms = now;
	bar = log_bar(done, total, BAR_WIDTH);
	log_progress("%s: [%s] copying: %.1f of %.1f GiB", in->name, bar, (double)done / GIB, (double)total / GIB);
}

static int write_at(int fd, const char *data, size_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static bool is_zero(const char *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Runs of blocks that are not zero; the others stay holes. */
static int write_sparse(int fd, const char *data, size_t len, uint64_t at)
{
	size_t from = 0, i = 0;
	int r = 0;

	while (r == 0 && i < len) {
		size_t block = len - i < BLOCK ? len - i : BLOCK;

		if (is_zero(data + i, block)) {
			r = write_at(fd, data + from, i - from, at + from);
			from = i + block;
		}
		i += block;
	}
	return r == 0 && from < len ? write_at(fd, data + from, len - from, at + from) : r;
}

static char *hex_digest(gcry_md_hd_t md)
{
	const unsigned char *b = gcrypt.gcry_md_read(md, GCRY_MD_SHA256);
	char *hex = xcalloc(SHA256_HEX + 1, 1);

	for (int i = 0; i < SHA256_HEX / 2; i++)
		snprintf(hex + 2 * i, 3, "%02x", b[i]);
	return hex;
}

static int open_digest(gcry_md_hd_t *ret, struct err *e)
{
	gcry_error_t error;
	int r = lazy_load("libgcrypt.so.20", gcrypt_names, ARRAY_SIZE(gcrypt_names), &gcrypt, e);

	if (r < 0)
		return r;
	/* Required once, before anything else of the library. */
	if (!gcrypt.gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
		gcrypt.gcry_check_version(NULL);
		gcrypt.gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
		gcrypt.gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
	}
	error = gcrypt.gcry_md_open(ret, GCRY_MD_SHA256, 0);
	return error ? err_set(e, -ENOSYS, "libgcrypt has no SHA-256: %s", gcrypt.gcry_strerror(error)) : 0;
}

/* Next block of @fd into @buf; bytes, 0 at the end. */
static ssize_t read_some(int fd, char *buf)
{
	ssize_t n;

	while ((n = read(fd, buf, BUFFER)) < 0 && errno == EINTR)
		;
	return n < 0 ? -errno : n;
}

static int copy_all(struct install *in, gcry_md_hd_t md, char *buf, struct err *e)
{
	uint64_t done = 0, last_ms = 0;
	ssize_t n;
	int r = 0;

	while ((n = read_some(in->in, buf)) > 0) {
		r = check_stop(in, e);
		if (r < 0)
			return r;
		if (done + (uint64_t)n > (uint64_t)in->st.st_size)
			break;
		gcrypt.gcry_md_write(md, buf, (size_t)n);
		r = write_sparse(in->temp.fd, buf, (size_t)n, done);
		if (r < 0)
			return err_sys(e, r, "copy '%s' to '%s'", in->opt->file, in->dir);
		done += (uint64_t)n;
		show_progress(in, done, &last_ms);
	}
	if (n < 0)
		return err_sys(e, (int)n, "read '%s'", in->opt->file);
	if (n > 0 || done != (uint64_t)in->st.st_size)
		return err_set(e, -EAGAIN, "'%s' changes while it is read: is it still being downloaded, or the disk of a VM?", in->opt->file);
	return 0;
}

static int copy_source(struct install *in, struct err *e)
{
	AUTO_FREE char *buf = xcalloc(1, BUFFER);
	gcry_md_hd_t md;
	int r = open_digest(&md, e);

	if (r < 0)
		return r;
	r = copy_all(in, md, buf, e);
	/* A hole at the end is no write. */
	if (r == 0 && (ftruncate(in->temp.fd, in->st.st_size) < 0 || fchmod(in->temp.fd, 0444) < 0 || fsync(in->temp.fd) < 0))
		r = err_sys(e, -errno, "copy '%s' to '%s'", in->opt->file, in->dir);
	if (r == 0)
		in->image.sha256 = hex_digest(md);
	gcrypt.gcry_md_close(md);
	return r;
}

static int check_space(const struct install *in, struct err *e)
{
	uint64_t need = (uint64_t)in->st.st_blocks * 512, size = (uint64_t)in->st.st_size, there;
	struct statvfs fs;

	if (statvfs(in->dir, &fs) < 0)
		return err_sys(e, -errno, "free space of '%s'", in->dir);
	there = (uint64_t)fs.f_bavail * fs.f_frsize;
	/* Holes are not copied. */
	need = need < size ? need : size;
	if (need <= there)
		return 0;
	return err_set(e, -ENOSPC, "'%s' needs %" PRIu64 " MiB, and there are %" PRIu64 " MiB free in '%s'; `gpuvm image remove` makes room",
		       in->opt->file, (need + MIB - 1) / MIB, there / MIB, in->dir);
}

/* What has arrived is what is used, so it is what is judged. */
static int judge_copy(struct install *in, struct err *e)
{
	struct disk_info d = { 0 };
	bool boots;
	int r;

	if (in->opt->sha256 && strcasecmp(in->opt->sha256, in->image.sha256) != 0)
		return err_set(e, -EINVAL, "'%s' is not what was expected: its SHA-256 is %s, not %s; fetch it again", in->opt->file, in->image.sha256,
			       in->opt->sha256);
	r = inspect(in->temp.fd, in->temp.path, in->opt->file, &d, &boots, e);
	if (r == 0 && strcmp(d.format, "qcow2") == 0) {
		log_progress("%s: checking", in->name);
		r = disk_check(in->temp.path, "qcow2", in->stop_fd, e);
		if (r < 0 && r != -EINTR)
			err_wrap(e, "'%s' is damaged", in->opt->file);
	}
	if (r == 0) {
		in->image.format = STEAL_PTR(d.format);
		in->image.virtual_bytes = d.virtual_bytes;
		in->image.bytes = (uint64_t)in->st.st_size;
	}
	disk_info_clear(&d);
	return r;
}

/* --- its name ------------------------------------------------------------------------------------------------------------ */

/* Is the name free, or there, as it should be? @ret: the one that is there. With the lock held. */
static int check_name(const struct install *in, struct image *ret, struct err *e)
{
	int r = image_record_read(in->dir, in->name, ret, e);

	if (r == -ENOENT)
		return in->opt->upgrade ? image_not_there(in->dir, in->name, e) : 0;
	if (r < 0 || in->opt->upgrade)
		return r;
	return err_set(e, -EEXIST, "there is an image '%s' already; `gpuvm image upgrade` replaces it, --name gives this one another name", in->name);
}

/* Before the copy, so that nobody waits for what is refused. */
static int begin(struct install *in, struct err *e)
{
	AUTO_CLOSE int lock = image_lock(in->statedir, e);
	struct image now = { 0 };
	int r = lock < 0 ? lock : check_name(in, &now, e);

	image_clear(&now);
	if (r == 0)
		r = image_temp_make(in->dir, in->name, &in->temp, e);
	/* After what killed installs have left is gone. */
	return r == 0 ? check_space(in, e) : r;
}

/* An older file of the same name, which disks may need: is it the same to the last byte? */
static int same_file(struct install *in, struct err *e)
{
	AUTO_CLOSE int fd = open(in->image.file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	AUTO_FREE char *buf = xcalloc(1, BUFFER), *sha256 = NULL;
	gcry_md_hd_t md;
	ssize_t n;
	int r;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "open '%s'", in->image.file);
	r = open_digest(&md, e);
	if (r < 0)
		return r;
	while ((n = read_some(fd, buf)) > 0)
		gcrypt.gcry_md_write(md, buf, (size_t)n);
	sha256 = hex_digest(md);
	gcrypt.gcry_md_close(md);
	if (n < 0)
		return err_sys(e, (int)n, "read '%s'", in->image.file);
	return strcmp(sha256, in->image.sha256) == 0 ? 1 :
	       err_set(e, -EEXIST, "'%s' is there with other contents (damaged?); move it away if nothing needs it", in->image.file);
}

static int publish(struct install *in, struct err *e)
{
	int r = same_file(in, e);
	bool reuse = r == 1;

	if (r < 0)
		return r;
	if (!reuse && rename(in->temp.path, in->image.file) < 0)
		return err_sys(e, -errno, "name it '%s'", in->image.file);
	if (!reuse)
		free(STEAL_PTR(in->temp.path));
	r = fsync_parent(in->image.file);
	if (r < 0)
		err_sys(e, r, "sync '%s'", in->dir);
	else
		r = image_record_write(in->dir, &in->image, e);
	/* The record may be there in spite of the error (its folder could not be synced): then it keeps its file. */
	if (r < 0 && !reuse && image_is_orphan(in->dir, strrchr(in->image.file, '/') + 1))
		unlink(in->image.file);
	return r;
}

static int commit(struct install *in, struct err *e)
{
	AUTO_FREE char *file = image_file_name(in->name, in->image.sha256, in->image.format);
	AUTO_CLOSE int lock = image_lock(in->statedir, e);
	struct image now = { 0 };
	int r = lock < 0 ? lock : check_name(in, &now, e);

	/* One whose file has gone is mended so. */
	if (r == 0 && now.sha256 && strcmp(now.sha256, in->image.sha256) == 0 && access(now.file, R_OK) == 0) {
		image_clear(&in->image);
		in->image = now;
		return 1;
	}
	image_clear(&now);
	if (r < 0)
		return r;
	in->image.file = xasprintf("%s/%s", in->dir, file);
	in->image.name = xstrdup(in->name);
	in->image.source = realpath(in->opt->file, NULL);
	if (!in->image.source)
		in->image.source = xstrdup(in->opt->file);
	in->image.installed = time(NULL);
	r = publish(in, e);
	if (r == 0)
		image_collect_garbage(in->statedir, in->users);
	return r;
}

/* --- all of it ----------------------------------------------------------------------------------------------------------- */

static int check_options(struct install *in, struct err *e)
{
	in->name = in->opt->name ? xstrdup(in->opt->name) : image_name_from_file(in->opt->file);
	if (!in->name)
		return err_set(e, -EINVAL, "the name of '%s' is none for an image (letters, digits and \"-_.\", at most %d); give one with --name",
			       in->opt->file, VM_NAME_MAX);
	if (!image_name_ok(in->name))
		return err_set(e, -EINVAL, "'%s' is no name for an image: letters, digits and \"-_.\", not beginning with \"-\" or \".\", at most %d",
			       in->name, VM_NAME_MAX);
	if (in->opt->sha256 && !image_sha256_ok(in->opt->sha256))
		return err_set(e, -EINVAL, "'%s' is no SHA-256: it has %d hexadecimal digits", in->opt->sha256, SHA256_HEX);
	return 0;
}

static int run(struct install *in, struct err *e)
{
	int r = check_options(in, e);

	if (r == 0)
		r = open_source(in, e);
	if (r == 0)
		r = look_at_source(in, e);
	if (r == 0)
		r = begin(in, e);
	if (r == 0)
		r = copy_source(in, e);
	if (r == 0)
		r = judge_copy(in, e);
	if (r == 0)
		r = check_stop(in, e);
	return r == 0 ? commit(in, e) : r;
}

int image_install(const char *statedir, const struct image_users *u, const struct image_install *o, struct image *ret, struct err *e)
{
	struct install in = { .statedir = statedir, .users = u, .opt = o, .in = -1, .temp = { .fd = -1 } };
	sigset_t old;
	int r;

	in.stop_fd = hold_signals(&old, e);
	if (in.stop_fd < 0)
		return in.stop_fd;
	in.dir = xasprintf("%s/" IMAGES, statedir);
	r = run(&in, e);
	log_progress_end();
	image_temp_drop(&in.temp);
	release_signals(in.stop_fd, &old);
	if (in.in >= 0)
		close(in.in);
	if (r >= 0) {
		*ret = in.image;
		in.image = (struct image){ 0 };
	}
	image_clear(&in.image);
	free(in.name);
	free(in.dir);
	return r;
}
