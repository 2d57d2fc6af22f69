/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "gpuvm/events.h"
#include "gpuvm/parse.h"

static char *events_path(const char *rundir)
{
	return xasprintf("%s/" EVENTS_FILE, rundir);
}

static char *event_line(const char *event, const char *state, const char *text)
{
	struct json_object *o = json_object_new_object();
	struct timespec now;
	char time[32];
	char *line;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(time, sizeof(time), "%lld.%03ld", (long long)now.tv_sec, now.tv_nsec / 1000000);
	json_object_object_add(o, "time", json_object_new_double_s((double)now.tv_sec + (double)now.tv_nsec / 1e9, time));
	json_object_object_add(o, "event", json_object_new_string(event));
	json_object_object_add(o, "state", json_object_new_string(state));
	json_object_object_add(o, "text", json_object_new_string(text ? text : ""));
	line = xasprintf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	return line;
}

/* Is the last line whole? One that a full disk has cut off must not take the next one with it. */
static bool ends_in_newline(int fd, off_t size)
{
	char last;

	return size == 0 || (pread(fd, &last, 1, size - 1) == 1 && last == '\n');
}

int events_add(const char *rundir, const char *event, const char *state, const char *text, struct err *e)
{
	AUTO_FREE char *path = events_path(rundir), *line = event_line(event, state, text), *whole = NULL;
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(e, -errno, "open '%s'", path);
	whole = xasprintf("%s%s", ends_in_newline(fd, st.st_size) ? "" : "\n", line);
	n = write(fd, whole, strlen(whole));
	if (n != (ssize_t)strlen(whole))
		return err_sys(e, n < 0 ? -errno : -ENOSPC, "write '%s'", path);
	if ((size_t)st.st_size > EVENTS_MAX) {
		AUTO_FREE char *old = xasprintf("%s.1", path);

		if (rename(path, old) < 0)
			return err_sys(e, -errno, "rename '%s'", path);
	}
	return 0;
}

static void read_file(const char *path, struct json_object *all)
{
	AUTO_FREE char *text = NULL;
	char *save = NULL;

	if (read_own_file(path, 2 * EVENTS_MAX, &text) < 0)
		return;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct json_object *o = json_tokener_parse(line);

		if (json_object_is_type(o, json_type_object))
			json_object_array_add(all, o);
		else
			json_object_put(o);
	}
}

struct json_object *events_read(const char *rundir, size_t max)
{
	struct json_object *all = json_object_new_array();
	AUTO_FREE char *path = events_path(rundir), *old = xasprintf("%s.1", path);
	size_t n;

	read_file(old, all);
	read_file(path, all);
	n = json_object_array_length(all);
	if (n > max)
		json_object_array_del_idx(all, 0, n - max);
	return all;
}
