/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gpuvm log: what happened to a VM, what QEMU said, what the guest wrote. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <json-c/json.h>
#include <stdint.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "gpuvm/events.h"
#include "gpuvm/log.h"

static const char usage[] = "usage: gpuvm log [-f] [--qemu | --console | --launcher] [--json] NAME\n\n"
			    "What happened to the VM, a line per event; it is kept over its end until the host is restarted.\n"
			    "  -f, --follow  go on with what comes; Ctrl-C ends it\n"
			    "  --qemu        what QEMU said (qemu.log)\n"
			    "  --console     what the guest wrote to its console (serial.log)\n"
			    "  --launcher    what a launcher in the background said (launch.log)\n"
			    "  --json        events as they are in the file, a JSON object per line\n";

struct log_args {
	const char *name, *file;
	bool follow, json, done;
};

static int parse(int argc, char **argv, struct log_args *a)
{
	static const struct option options[] = { { "follow", no_argument, NULL, 'f' },	 { "qemu", no_argument, NULL, 'q' }, { "console", no_argument, NULL, 'c' },
						 { "launcher", no_argument, NULL, 'l' }, { "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' },
						 { 0 } };
	int c;

	optind = 0;
	while ((c = getopt_long(argc, argv, "fh", options, NULL)) != -1) {
		switch (c) {
		case 'f':
			a->follow = true;
			break;
		case 'q':
			a->file = "qemu.log";
			break;
		case 'c':
			a->file = "serial.log";
			break;
		case 'l':
			a->file = "launch.log";
			break;
		case 'j':
			a->json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			a->done = true;
			return 0;
		default:
			return EXIT_USAGE;
		}
	}
	if (optind != argc - 1) {
		fprintf(stderr, "gpuvm log: %s\n%s", optind < argc ? "too many words" : "which VM?", usage);
		return EXIT_USAGE;
	}
	a->name = argv[optind];
	return 0;
}

static const char *member(struct json_object *o, const char *key)
{
	struct json_object *v = NULL;

	return json_object_object_get_ex(o, key, &v) ? json_object_get_string(v) : "";
}

void cmd_event_text(struct json_object *ev, char *buf, size_t size)
{
	struct json_object *t = NULL;
	char when[32] = "?";
	struct tm tm;
	time_t at;

	if (json_object_object_get_ex(ev, "time", &t)) {
		double seconds = json_object_get_double(t);

		/* The file may be damaged: not every number is a time. */
		at = seconds >= 0 && seconds < INT32_MAX * 1000.0 ? (time_t)seconds : 0;
		if (localtime_r(&at, &tm))
			strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	}
	snprintf(buf, size, "%s  %-9s %-16s %s", when, member(ev, "state"), member(ev, "event"), member(ev, "text"));
	/* A line per event, also where the text has qemu.log's last lines in it; and nothing that a terminal would obey. */
	for (char *c = buf; *c; c++)
		if (iscntrl((unsigned char)*c))
			*c = ' ';
}

/* One line of the file; lines that are not JSON (a write that a full disk cut off) are left out. */
static void print_event(const char *line, const struct log_args *a)
{
	struct json_object *o = json_tokener_parse(line);
	char text[1024];

	if (json_object_is_type(o, json_type_object)) {
		cmd_event_text(o, text, sizeof(text));
		puts(a->json ? line : text);
	}
	json_object_put(o);
}

/* Whole lines of @buf as events; what is left of the last one is moved to the front. */
static size_t print_events(char *buf, size_t len, const struct log_args *a)
{
	char *from = buf, *nl;

	while ((nl = memchr(from, '\n', len - (size_t)(from - buf)))) {
		*nl = '\0';
		print_event(from, a);
		from = nl + 1;
	}
	len -= (size_t)(from - buf);
	memmove(buf, from, len);
	return len;
}

/* Everything from where was read last to the end of the file. */
static int print_rest(int fd, const struct log_args *a)
{
	static char buf[1 << 16];
	static size_t len;
	ssize_t n;

	while ((n = read(fd, buf + len, sizeof(buf) - len)) > 0) {
		if (a->file) {
			fwrite(buf, 1, (size_t)n, stdout);
			continue;
		}
		len = print_events(buf, len + (size_t)n, a);
		if (len == sizeof(buf))
			len = 0; /* no event is that long */
	}
	/* What could not be written is told by the program, for all verbs. */
	fflush(stdout);
	return n < 0 ? -errno : 0;
}

/* What a log had in it before it was emptied, as it had grown too large; none is the rule. */
static int print_older(const char *path, const struct log_args *a)
{
	AUTO_FREE char *old = xasprintf("%s.1", path);
	AUTO_CLOSE int fd = open(old, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? (errno == ENOENT ? 0 : -errno) : print_rest(fd, a);
}

/* A log is emptied when it has grown too large, events.jsonl is put aside then. */
static int reopen_if_new(int *fd, const char *path, bool created)
{
	struct stat st;
	int new_fd;

	if (!created)
		return fstat(*fd, &st) == 0 && st.st_size < lseek(*fd, 0, SEEK_CUR) && lseek(*fd, 0, SEEK_SET) < 0 ? -errno : 0;
	new_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (new_fd < 0)
		return errno == ENOENT ? 0 : -errno;
	close(*fd);
	*fd = new_fd;
	return 0;
}

/* Wait for something to happen to @file in @dir's watch. 1: it was created anew. */
static int wait_change(int notify, const char *file)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	for (;;) {
		ssize_t n = read(notify, buf, sizeof(buf));
		bool ours = false, created = false;

		if (n < 0 && errno != EINTR)
			return -errno;
		for (char *at = buf; n > 0 && at < buf + n; at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len) {
			const struct inotify_event *ev = (struct inotify_event *)at;

			if (!ev->len || strcmp(ev->name, file) != 0)
				continue;
			ours = true;
			created = created || ev->mask & (IN_CREATE | IN_MOVED_TO);
		}
		if (ours)
			return created;
	}
}

static int follow(int *fd, const char *dir, const char *path, const struct log_args *a)
{
	AUTO_CLOSE int notify = inotify_init1(IN_CLOEXEC);
	bool created;
	int r = 0;

	if (notify < 0 || inotify_add_watch(notify, dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0)
		return -errno;
	/* The first round has what came before the watch was there. */
	while (r >= 0 && (r = print_rest(*fd, a)) == 0 && !ferror(stdout)) {
		r = wait_change(notify, strrchr(path, '/') + 1);
		created = r == 1;
		if (created)
			r = print_rest(*fd, a); /* the end of the old one */
		if (r >= 0)
			r = reopen_if_new(fd, path, created);
	}
	return r;
}

int cmd_log(int argc, char **argv)
{
	struct log_args a = { 0 };
	AUTO_FREE char *name = NULL, *dir = NULL, *path = NULL;
	AUTO_CLOSE int fd = -1;
	int r = parse(argc, argv, &a);

	if (r || a.done)
		return r;
	name = cmd_vm_name(a.name);
	dir = claim_vm_dir(name);
	path = xasprintf("%s/%s", dir, a.file ? a.file : EVENTS_FILE);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		if (errno == ENOENT)
			log_error("'%s' has no %s since the host was started", name, strrchr(path, '/') + 1);
		else
			log_error("'%s': %s", path, strerror(errno));
		return EXIT_FAILED;
	}
	r = print_older(path, &a);
	if (r == 0)
		r = print_rest(fd, &a);
	if (r == 0 && a.follow)
		r = follow(&fd, dir, path, &a);
	if (r < 0)
		log_error("'%s': %s", path, strerror(-r));
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
