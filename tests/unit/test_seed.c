/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The cloud-init seed, made by each program that is here and read back by libarchive; swtpm from start to end; claims that name it. */
#include <archive.h>
#include <archive_entry.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "gpuvm/affinity.h"
#include "gpuvm/claim.h"
#include "gpuvm/seed.h"
#include "gpuvm/tpm.h"
#include "tests/fake/mkhost.h"

#define WAIT_MS 20000

/* Every character that some program on the way takes for its own. */
#define NASTY "a,b 'c'=\"d\":\\e*[f]?#%;"

/* A folder that is called so, in a new one of its own; the latter is to be given to mkhost_remove(). */
static char *place(char **ret_root)
{
	char root[] = "/tmp/gpuvm-seed-XXXXXX";
	char *dir;

	cr_assert_not_null(mkdtemp(root));
	dir = xasprintf("%s/%s", root, NASTY);
	cr_assert(zero(int, mkdir(dir, 0700)));
	*ret_root = xstrdup(root);
	return dir;
}

static char *put(const char *dir, const char *name, const char *text, size_t len)
{
	char *path = xasprintf("%s/%s", dir, name);

	cr_assert(zero(int, write_file_atomic(path, text, len, 0600)));
	return path;
}

/* --- reading an image --------------------------------------------------------------------------------------------- */

/* Volume name: 32 bytes from 40 of the descriptor, which is in sector 16 of 2048 bytes (ECMA-119). */
static void expect_volume(const char *image)
{
	AUTO_CLOSE int fd = open(image, O_RDONLY | O_CLOEXEC);
	char name[33] = "";

	cr_assert(eq(long, pread(fd, name, 32, 16 * 2048 + 40), 32));
	cr_expect_str_eq(name, "CIDATA                          ");
}

/* "name=contents;" of each file, sorted by the image. */
static char *read_image(const char *image)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	char *text = NULL, buf[70000];
	size_t len;
	FILE *f = open_memstream(&text, &len);

	archive_read_support_format_iso9660(a);
	cr_assert(eq(int, archive_read_open_filename(a, image, 2048), ARCHIVE_OK), "%s", archive_error_string(a));
	while (archive_read_next_header(a, &e) == ARCHIVE_OK) {
		ssize_t n;

		if (archive_entry_filetype(e) == AE_IFDIR)
			continue;
		fprintf(f, "%s=", archive_entry_pathname(e));
		while ((n = archive_read_data(a, buf, sizeof(buf))) > 0)
			fwrite(buf, 1, (size_t)n, f);
		cr_assert(zero(long, n));
		fputc(';', f);
	}
	archive_read_free(a);
	fclose(f);
	return text;
}

static void expect_has(const char *image, const char *part)
{
	AUTO_FREE char *text = read_image(image);

	cr_expect(strstr(text, part) != NULL, "'%s' is not in:\n%s", part, text);
}

/* --- the seed ------------------------------------------------------------------------------------------------------- */

static const char *const tools[] = { "/usr/bin/xorrisofs", "/usr/bin/genisoimage", "/usr/bin/mkisofs" };

static void one_seed(const char *tool)
{
	char *root, *dir = place(&root);
	AUTO_FREE char *user = put(dir, "my=user,data \"1\"", "#cloud-config\n\n", 15), *net = put(dir, "net", "version: 2", 10);
	AUTO_FREE char *image = xasprintf("%s/seed.iso", dir);
	struct plan_seed s = { .image = image,
			       .label = "CIDATA",
			       .tool = (char *)tool,
			       .n_files = 3,
			       .files = { { .name = "user-data", .path = user },
					  { .name = "meta-data", .text = (char *)"instance-id: \"x\"\n" },
					  { .name = "network-config", .path = net } } };
	struct err e = { 0 };
	struct stat st;

	/* twice: the second one replaces the first */
	cr_assert(zero(int, seed_make(&s, &e)), "%s: %s", tool, e.msg);
	cr_assert(zero(int, seed_make(&s, &e)), "%s: %s", tool, e.msg);
	expect_volume(image);
	expect_has(image, "user-data=#cloud-config\n\n;");
	expect_has(image, "meta-data=instance-id: \"x\"\n;");
	expect_has(image, "network-config=version: 2;");
	cr_assert(zero(int, stat(image, &st)));
	cr_expect(eq(u32, st.st_mode & 0777, 0600));
	/* nothing else is left: two files of the user's, and the image */
	free(STEAL_PTR(image));
	image = xasprintf("%s/seed", dir);
	cr_expect(ne(int, access(image, F_OK), 0));
	cr_assert(zero(int, seed_remove(dir, &e)), "%s", e.msg);
	cr_assert(zero(int, seed_remove(dir, &e)), "%s", e.msg);
	cr_expect(ne(int, access(s.image ? s.image : "", F_OK), 0));
	free(dir);
	mkhost_remove(root);
}

Test(seed, each_program_makes_it)
{
	int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(tools); i++) {
		if (access(tools[i], X_OK) < 0)
			continue;
		one_seed(tools[i]);
		n++;
	}
	if (!n)
		cr_skip("no program that makes ISO images is installed");
}

/* Compressed user-data and more than a buffer of it; a meta-data file in place of ours; no network-config, no user-data. */
Test(seed, bytes_survive)
{
	AUTO_FREE char *tool = seed_find_tool();
	char *root, *dir = place(&root);
	AUTO_FREE char *big = xcalloc(50001, 1), *meta = NULL, *image = xasprintf("%s/seed.iso", dir);
	AUTO_FREE char *whole = NULL, *text = NULL;
	struct plan_seed s = { .image = image,
			       .label = "CIDATA",
			       .tool = tool,
			       .n_files = 2,
			       .files = { { .name = "user-data", .text = (char *)"" }, { .name = "meta-data" } } };
	struct err e = { 0 };

	if (!tool)
		cr_skip("no program that makes ISO images is installed");
	for (int i = 0; i < 50000; i++)
		big[i] = (char)('a' + i % 23);
	meta = put(dir, "m", big, 50000);
	s.files[1].path = meta;
	cr_assert(zero(int, seed_make(&s, &e)), "%s", e.msg);
	whole = xasprintf("meta-data=%s;", big);
	expect_has(image, whole);
	expect_has(image, "user-data=;");
	text = read_image(image);
	cr_expect(zero(ptr, (void *)strstr(text, "network-config")));
	free(dir);
	mkhost_remove(root);
}

/* What fails leaves nothing, and says what it was. */
Test(seed, failures)
{
	char *root, *dir = place(&root);
	AUTO_FREE char *fifo = xasprintf("%s/fifo", dir), *image = xasprintf("%s/seed.iso", dir),
		       *copies = xasprintf("%s/seed", dir);
	AUTO_FREE char *script = put(root, "tool", "#!/bin/sh\necho it is full >&2\nexit 3\n", 38);
	struct {
		const char *tool, *user;
		int code;
		const char *says;
	} rows[] = {
		{ "/bin/true", "/nonexistent/user", -ENOENT, "/nonexistent/user" },
		{ "/bin/true", dir, -EISDIR, "directory" },
		{ "/bin/true", fifo, -EINVAL, "fifo" },
		{ "/bin/true", NULL, -ENOENT, "did not make" },
		{ "/nonexistent/tool", NULL, -ENOENT, "/nonexistent/tool" },
		{ script, NULL, -EIO, "(exit code 3): it is full" },
	};

	cr_assert(zero(int, mkfifo(fifo, 0600)));
	cr_assert(zero(int, chmod(script, 0700)));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct plan_seed s = {
			.image = image, .label = "CIDATA", .tool = (char *)rows[i].tool, .n_files = 1,
			.files = { { .name = "user-data", .path = (char *)rows[i].user, .text = (char *)"" } },
		};
		struct err e = { 0 };

		cr_expect(eq(int, seed_make(&s, &e), rows[i].code), "row %zu: %s", i, e.msg);
		cr_expect(strstr(e.msg, rows[i].says) != NULL, "row %zu: %s", i, e.msg);
		cr_expect(ne(int, access(image, F_OK), 0), "row %zu", i);
		cr_expect(ne(int, access(copies, F_OK), 0), "row %zu", i);
	}
	cr_expect(eq(int, seed_check_file(dir), -EISDIR));
	cr_expect(eq(int, seed_check_file(fifo), -EINVAL));
	cr_expect(eq(int, seed_check_file("/nonexistent"), -ENOENT));
	cr_expect(zero(int, seed_check_file(script)));
	free(dir);
	mkhost_remove(root);
}

/* One that was killed half-way: the next start, and the end, clean up after it. */
Test(seed, half_of_one)
{
	char *root, *dir = place(&root);
	AUTO_FREE char *copies = xasprintf("%s/seed", dir), *file = NULL, *check = xasprintf("%s/check", dir), *script = NULL, *image = put(dir, "check.iso", "", 0);
	struct err e = { 0 };

	cr_assert(zero(int, mkdir(copies, 0700)));
	cr_assert(zero(int, mkdir(check, 0700)));
	file = put(copies, "user-data", "secret", 6);
	script = put(check, "gpuvm-check.sh", "", 0);
	cr_assert(zero(int, seed_remove(dir, &e)), "%s", e.msg);
	cr_expect(ne(int, access(copies, F_OK), 0));
	cr_expect(ne(int, access(check, F_OK), 0));
	cr_expect(ne(int, access(image, F_OK), 0));
	free(dir);
	mkhost_remove(root);
}

/* --- swtpm ------------------------------------------------------------------------------------------------------------ */

static char *find_swtpm(void)
{
	char *path = spawn_find_program("swtpm");

	if (!path)
		cr_skip("swtpm is not installed");
	return path;
}

static void expect_end(struct spawn *s)
{
	struct pollfd p = { .fd = s->pidfd, .events = POLLIN };

	cr_assert(eq(int, poll(&p, 1, WAIT_MS), 1), "swtpm does not end");
}

static int connect_to(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert(lt(sz, strlen(path), sizeof(sa.sun_path)));
	strcpy(sa.sun_path, path);
	cr_assert(zero(int, connect(fd, (const struct sockaddr *)&sa, sizeof(sa))), "%s", path);
	return fd;
}

struct tpm {
	char *root, *dir, *state, *sock, *program;
	struct plan_tpm t;
	struct spawn s;
};

static void tpm_new(struct tpm *t)
{
	struct err e = { 0 };

	*t = (struct tpm){ .program = find_swtpm() };
	t->dir = place(&t->root);
	t->state = xasprintf("%s/state/tpm/x", t->dir);
	t->sock = xasprintf("%s/tpm.sock", t->dir);
	t->t = (struct plan_tpm){ .state_dir = t->state, .socket = t->sock, .program = t->program };
	cr_assert(zero(int, tpm_make_state(t->state, &e)), "%s", e.msg);
	cr_assert(zero(int, tpm_prepare(&t->t, NULL, NULL, true, &t->s, &e)), "%s", e.msg);
}

static void tpm_clear(struct tpm *t)
{
	tpm_stop(&t->s);
	cr_expect(zero(int, t->s.pid));
	free(t->dir);
	free(t->state);
	free(t->sock);
	free(t->program);
	mkhost_remove(t->root);
}

/* CMD_SET_DATAFD of its control channel (swtpm_ioctls(3)), as QEMU does at its start: a word of 32 bits, with one end of a socket pair for
 * the TPM's own commands.  The result, a word too, is 0. Returns the other end. */
static int attach(int control)
{
	unsigned char command[4] = { 0, 0, 0, 16 }, reply[4] = { 1, 1, 1, 1 };
	char space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { command, sizeof(command) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	struct pollfd p = { .fd = control, .events = POLLIN };
	int pair[2];

	cr_assert(zero(int, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)));
	*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(c), &pair[1], sizeof(int));
	cr_assert(eq(long, sendmsg(control, &m, MSG_NOSIGNAL), 4));
	close(pair[1]);
	cr_assert(eq(int, poll(&p, 1, WAIT_MS), 1), "swtpm does not answer");
	cr_assert(eq(long, recv(control, reply, sizeof(reply), 0), 4));
	cr_assert(zero(int, memcmp(reply, "\0\0\0\0", 4)));
	return pair[0];
}

Test(tpm, lives_as_long_as_its_client, .timeout = 60)
{
	struct tpm t;
	struct err e = { 0 };
	struct stat st;
	int fd, data;

	tpm_new(&t);
	/* Before it runs one can connect already: nobody has to wait for it. */
	fd = connect_to(t.sock);
	cr_assert(zero(int, spawn_go(&t.s, &e)), "%s", e.msg);
	data = attach(fd);
	cr_assert(zero(int, stat(t.state, &st)));
	cr_expect(eq(u32, st.st_mode & 0777, 0700));
	cr_assert(zero(int, kill(t.s.pid, 0)));
	close(fd);
	close(data);
	expect_end(&t.s);
	tpm_clear(&t);
}

Test(tpm, one_that_nobody_has_used, .timeout = 60)
{
	struct tpm t;
	struct err e = { 0 };
	pid_t pid;

	tpm_new(&t);
	cr_assert(zero(int, spawn_go(&t.s, &e)), "%s", e.msg);
	pid = t.s.pid;
	cr_assert(zero(int, kill(pid, 0)));
	tpm_stop(&t.s);
	cr_expect(eq(int, kill(pid, 0), -1));
	tpm_clear(&t);
	/* at its gate */
	tpm_new(&t);
	pid = t.s.pid;
	tpm_stop(&t.s);
	cr_expect(eq(int, kill(pid, 0), -1));
	tpm_clear(&t);
}

/* A stopped process sees no SIGTERM: it is killed after a while. */
Test(tpm, one_that_does_not_listen, .timeout = 60)
{
	struct tpm t;
	struct err e = { 0 };
	pid_t pid;

	tpm_new(&t);
	cr_assert(zero(int, spawn_go(&t.s, &e)), "%s", e.msg);
	pid = t.s.pid;
	cr_assert(zero(int, kill(pid, SIGSTOP)));
	tpm_stop(&t.s);
	cr_expect(eq(int, kill(pid, 0), -1));
	tpm_clear(&t);
}

/* What it reads is written by a guest: not as root. */
Test(tpm, another_user, .timeout = 60)
{
	struct tpm t;
	AUTO_FREE char *path = NULL, *text = NULL, *want = NULL;
	const struct spawn_identity id = { .uid = 61000, .gid = 61000 };
	struct err e = { 0 };
	struct stat st;
	int fd, data;

	if (geteuid() != 0)
		cr_skip("only root can change to another user");
	tpm_new(&t);
	tpm_stop(&t.s);
	cr_assert(zero(int, chown(t.state, id.uid, id.gid)));
	cr_assert(zero(int, tpm_prepare(&t.t, NULL, &id, true, &t.s, &e)), "%s", e.msg);
	/* QEMU, which is the same, connects to it. */
	cr_assert(zero(int, stat(t.sock, &st)));
	cr_expect(eq(u32, st.st_uid, id.uid));
	fd = connect_to(t.sock);
	cr_assert(zero(int, spawn_go(&t.s, &e)), "%s", e.msg);
	/* Once it answers it has changed. */
	data = attach(fd);
	path = xasprintf("/proc/%d/status", t.s.pid);
	want = xasprintf("\nUid:\t%u\t%u\t%u\t%u\n", id.uid, id.uid, id.uid, id.uid);
	cr_assert(zero(int, read_text_file(path, 1 << 16, &text)));
	cr_expect(strstr(text, want) != NULL, "%s", text);
	close(data);
	close(fd);
	tpm_clear(&t);
}

Test(tpm, a_program_that_is_not_there, .timeout = 60)
{
	struct spawn s = { 0 };
	char *root, *dir = place(&root);
	AUTO_FREE char *state = xasprintf("%s/s", dir), *sock = xasprintf("%s/tpm.sock", dir);
	struct plan_tpm t = { .state_dir = state, .socket = sock, .program = (char *)"/nonexistent/swtpm" };
	struct err e = { 0 };

	cr_assert(zero(int, tpm_make_state(state, &e)), "%s", e.msg);
	cr_assert(zero(int, tpm_prepare(&t, NULL, NULL, true, &s, &e)), "%s", e.msg);
	cr_expect(eq(int, spawn_go(&s, &e), -ENOENT));
	cr_expect(strstr(e.msg, "/nonexistent/swtpm") != NULL, "%s", e.msg);
	tpm_stop(&s);
	free(dir);
	mkhost_remove(root);
}

/* --- claims ---------------------------------------------------------------------------------------------------------------- */

static pid_t start_sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		for (;;)
			pause();
	}
	cr_assert(gt(int, pid, 0));
	return pid;
}

static void write_claim(const char *vm, pid_t helper, uint64_t start)
{
	struct claim c = { .launcher_pid = 1, .launcher_start = 1, .partition = -1 };
	struct claim_helper *h = PUSH_ZEROED(c.helpers, c.n_helpers);
	struct err e = { 0 };

	c.vm = xstrdup(vm);
	c.rundir = claim_vm_dir(vm);
	c.boot_id = claim_boot_id();
	c.reason = xstrdup("");
	strcpy(c.state, "starting");
	h->name = xstrdup("swtpm");
	h->pid = helper;
	h->start = start;
	cr_assert(zero(int, mkdir(c.rundir, 0700)));
	cr_assert(zero(int, claim_write(&c, &e)), "%s", e.msg);
	claim_clear(&c);
}

static void recover(const char *vm)
{
	AUTO_FREE char *dir = claim_vm_dir(vm);
	struct claim c = { 0 };
	struct err e = { 0 };

	cr_assert(zero(int, claim_read(dir, &c, &e)), "%s", e.msg);
	cr_assert(eq(sz, c.n_helpers, 1));
	cr_expect_str_eq(c.helpers[0].name, "swtpm");
	cr_assert(zero(int, claim_recover(&sysfs_live, &c, &e)), "%s", e.msg);
	claim_clear(&c);
}

/* The launcher died between swtpm and QEMU: recovering ends swtpm, and no other process that has its pid by now. */
Test(tpm, recovering_ends_it, .timeout = 60)
{
	char root[] = "/tmp/gpuvm-claim-XXXXXX";
	pid_t ours = start_sleeper(), other = start_sleeper();
	int status;

	cr_assert_not_null(mkdtemp(root));
	cr_assert(zero(int, setenv("GPUVM_RUNDIR", root, 1)));
	write_claim("a", ours, process_start_time(ours));
	write_claim("b", other, process_start_time(other) + 1);
	recover("a");
	recover("b");
	cr_expect(eq(int, waitpid(ours, &status, 0), ours));
	cr_expect(eq(int, status, SIGKILL));
	cr_expect(zero(int, waitpid(other, &status, WNOHANG)));
	kill(other, SIGKILL);
	waitpid(other, &status, 0);
	mkhost_remove(xstrdup(root));
}
