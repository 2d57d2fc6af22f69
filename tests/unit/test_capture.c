/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Captures: the same machine again, without what identifies it; and tars that nobody should trust. */
#include <archive.h>
#include <archive_entry.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <json-c/json.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gpuvm/capture.h"
#include "gpuvm/draw.h"
#include "gpuvm/probe.h"
#include "tests/fake/mkhost.h"

/* A folder of the test's own; remove with mkhost_remove(). */
static char *make_folder(void)
{
	char *dir = xasprintf("%s/gpuvm-test-capture-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");

	cr_assert_not_null(mkdtemp(dir));
	return dir;
}

/* All that is known of a machine, but for what a capture changes. */
static char *machine_json(const char *root)
{
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };
	struct json_object *o;
	char *text;

	cr_assert(eq(int, probe_source(root, NULL, &t, &e), 0), "%s", e.msg);
	o = topology_to_json(&t, NULL);
	json_object_object_del(o, "root");
	json_object_object_del(o, "machine_id");
	text = xstrdup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
	return text;
}

static int capture(const char *root, const char *dest, bool keep_name, struct capture_report *ret)
{
	struct err e = { 0 };
	int r = capture_host(root, dest, keep_name, ret, &e);

	cr_assert(eq(int, r, 0), "%s", e.msg);
	return r;
}

static void assert_same_machine(const char *root, const char *dest)
{
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	AUTO_FREE char *want = machine_json(root), *got = NULL;

	capture(root, dest, true, &report);
	got = machine_json(dest);
	cr_assert_str_eq(got, want, "%s", dest);
	cr_assert(gt(sz, report.n_files, 100));
	cr_assert(gt(sz, report.n_functions, 2));
}

struct fixture {
	char name[64];
};

ParameterizedTestParameters(capture, same_topology)
{
	static struct fixture v[64];
	size_t n = 0;
	AUTO_CLOSEDIR DIR *d = opendir("tests/fixtures");
	struct dirent *de;

	while (d && (de = readdir(d)) && n < ARRAY_SIZE(v)) {
		size_t len = strlen(de->d_name);

		if (len > 5 && len < sizeof(v->name) && !strcmp(de->d_name + len - 5, ".host"))
			snprintf(v[n++].name, sizeof(v->name), "%.*s", (int)len - 5, de->d_name);
	}
	return cr_make_param_array(struct fixture, v, n, NULL);
}

ParameterizedTest(struct fixture *f, capture, same_topology, .timeout = 60)
{
	char *root = mkhost_fixture(f->name), *dir = make_folder();
	static const char *const places[] = { "folder", "x.tar", "x.tar.gz" };

	cr_assert_not_null(root);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		AUTO_FREE char *dest = xasprintf("%s/%s", dir, places[i]);

		assert_same_machine(root, dest);
	}
	mkhost_remove(dir);
	mkhost_remove(root);
}

/* A capture can be captured: nothing is missing in it, nothing is lost in turn. */
Test(capture, of_a_capture)
{
	char *root = mkhost_fixture("plain"), *dir = make_folder();
	AUTO_FREE char *first = xasprintf("%s/1", dir), *second = xasprintf("%s/2", dir);
	CLEANUP(capture_report_clear) struct capture_report a = { 0 }, b = { 0 };

	capture(root, first, true, &a);
	capture(first, second, true, &b);
	cr_assert(eq(sz, a.n_files, b.n_files));
	cr_assert(eq(sz, a.n_links, b.n_links));
	cr_assert(eq(u64, a.bytes, b.bytes));
	mkhost_remove(dir);
	mkhost_remove(root);
}

/* --- privacy -------------------------------------------------------------------------------------------- */

static const char *const secrets[] = { "0123456789abcdef0123456789abcdef", "02:00:00:00:00", "a0b1c2d3e4f5", "db8beef",
				       "6a5b0a3e", "acme-db7",		       "DB8BEEF",	 "SECRETSERIAL" };

static char found_secret[512];

static int look_for_secrets(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	AUTO_FREE char *text = xcalloc(1, 65537);
	ssize_t n = 0;
	int fd;

	(void)st;
	(void)ftw;
	if (type == FTW_SL) {
		n = readlink(path, text, 65536);
	} else if (type == FTW_F && (fd = open(path, O_RDONLY)) >= 0) {
		n = read(fd, text, 65536);
		close(fd);
	}
	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
		if (strstr(path, secrets[i]) || (n > 0 && memmem(text, (size_t)n, secrets[i], strlen(secrets[i]))))
			snprintf(found_secret, sizeof(found_secret), "%s has '%s'", path, secrets[i]);
	return 0;
}

/* Give a function a serial number, as NICs have: their MAC. And vital product data in a vendor's capability. */
static void add_serial(const char *root, const char *path)
{
	AUTO_FREE char *file = xasprintf("%s/%s/config", root, path);
	AUTO_CLOSE int fd = open(file, O_RDWR);
	static const unsigned char dsn[] = { 0x03, 0x00, 0x01, 0x11, 0xf5, 0xe4, 0xd3, 0xff, 0xfe, 0xc2, 0xb1, 0xa0 };
	static const unsigned char vsec[] = "\x0b\x00\x01\x00\x01\x00\x00\x02" "SECRETSERIAL";
	static const unsigned char vendor[] = "\x09\x00\x10SECRETSERIAL";
	unsigned char first = 0xc0;

	cr_assert(ge(int, fd, 0));
	cr_assert(pwrite(fd, dsn, sizeof(dsn), 0x100) > 0 && pwrite(fd, vsec, sizeof(vsec), 0x110) > 0);
	cr_assert(pwrite(fd, vendor, sizeof(vendor), 0xc0) > 0 && pwrite(fd, &first, 1, 0x34) == 1);
}

#define PRIVATE                                                                                                           \
	"host acme-db7\ncpu GenuineIntel threads=1\nnode 0 socket=0 cpus=0-1 memory=1G\n"                                 \
	"kind nic 15b3:1021 020000 bars=32M:p link=32x16\nkind ssd 144d:a824 010802 bars=16K:64 link=32x4\nbus 0000:00\n" \
	"\t00:01.0 nic\n\t00:02.0 ssd\n\t00:03.0 nic\n"                                                                   \
	"disk nvme0n1 at 00:02.0 parts=1\ndm 0 luks-6a5b0a3e-1234-4cde-8f00-001122334455 on nvme0n1p1\nmount dm-0 / xfs\n"  \
	"net enxa0b1c2d3e4f5 at 00:01.0\nroute enxa0b1c2d3e4f5 default\nroute enxa0b1c2d3e4f5 10.99.0.0/16\n"               \
	"net eth1 at 00:03.0\naddress6 eth1 20010db8beef00000000000000000001\n"

Test(capture, keeps_no_secrets)
{
	char *root = mkhost_text(PRIVATE), *dir = make_folder();
	AUTO_FREE char *dest = xasprintf("%s/c", dir);
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };

	add_serial(root, "sys/devices/pci0000:00/0000:00:01.0");
	capture(root, dest, false, &report);
	nftw(dest, look_for_secrets, 16, FTW_PHYS);
	cr_assert_str_eq(found_secret, "");

	cr_assert(eq(int, probe_host(dest, &t, &e), 0), "%s", e.msg);
	cr_assert_str_eq(t.host_name, CAPTURE_HOST_NAME);
	cr_assert_str_eq(t.machine_id, CAPTURE_MACHINE_ID);
	/* What the host uses is known nonetheless, and names agree with each other. */
	cr_assert_str_eq(t.funcs[0].host_use, "enxid2 has the default route");
	cr_assert_not_null(strstr(t.funcs[1].host_use, " is mounted on /"), "%s", t.funcs[1].host_use);
	cr_assert_str_eq(t.funcs[2].host_use, "eth1 has an IPv6 address");
	mkhost_remove(dir);
	mkhost_remove(root);
}

static unsigned char config_byte(const char *root, const char *path, off_t at)
{
	AUTO_FREE char *file = xasprintf("%s/%s/config", root, path);
	AUTO_CLOSE int fd = open(file, O_RDONLY);
	unsigned char c = 0;

	cr_assert(ge(int, fd, 0));
	cr_assert(pread(fd, &c, 1, at) == 1);
	return c;
}

Test(capture, blanks_serial_numbers_but_not_the_lists_they_are_in)
{
	char *root = mkhost_text(PRIVATE), *dir = make_folder();
	AUTO_FREE char *dest = xasprintf("%s/c", dir);
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	static const char nic[] = "sys/devices/pci0000:00/0000:00:01.0";

	add_serial(root, nic);
	capture(root, dest, false, &report);
	cr_assert(eq(uint, config_byte(dest, nic, 0x100), 3));
	cr_assert(eq(uint, config_byte(dest, nic, 0x103), 0x11));
	cr_assert(eq(uint, config_byte(dest, nic, 0x104), 0));
	cr_assert(eq(uint, config_byte(dest, nic, 0x10b), 0));
	cr_assert(eq(uint, config_byte(dest, nic, 0x110), 0x0b));
	cr_assert(eq(uint, config_byte(dest, nic, 0), 0xb3));
	mkhost_remove(dir);
	mkhost_remove(root);
}

/* Vital product data have serial numbers: of those that tell what a function is for, only the one word is kept. */
Test(capture, of_vpd_only_the_mark)
{
	char *root = mkhost_fixture("dgx-b200"), *dir = make_folder();
	AUTO_FREE char *dest = xasprintf("%s/c", dir);
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };
	size_t marked = 0;

	capture(root, dest, false, &report);
	cr_assert(eq(int, probe_host(dest, &t, &e), 0), "%s", e.msg);
	for (size_t i = 0; i < t.n_funcs; i++) {
		char bdf[PCI_ADDR_STR];
		AUTO_FREE char *path = xasprintf("%s/sys/bus/pci/devices/%s/vpd", dest, pci_addr_format(&t.funcs[i].addr, bdf));
		AUTO_FREE char *text = NULL;

		if (read_text_file(path, 4096, &text) < 0)
			continue;
		cr_assert_str_eq(text, "SMDL=SW_MNG");
		marked++;
	}
	cr_assert(eq(sz, marked, 4));
	mkhost_remove(dir);
	mkhost_remove(root);
}

/* --- what can be wrong ------------------------------------------------------------------------------------- */

Test(capture, refuses_what_exists_and_what_is_no_machine)
{
	char *root = mkhost_fixture("desktop"), *dir = make_folder();
	AUTO_FREE char *dest = xasprintf("%s/c", dir), *deep = xasprintf("%s/no/such/c", dir), *tar = xasprintf("%s/no/c.tar", dir);
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	struct err e = { 0 };

	cr_assert(eq(int, capture_host(root, dir, false, &report, &e), -EEXIST));
	cr_assert_not_null(strstr(e.msg, "exists already"), "%s", e.msg);
	cr_assert(eq(int, capture_host("/etc", dest, false, &report, &e), -ENOENT));
	cr_assert(lt(int, access(dest, F_OK), 0), "nothing is left");
	cr_assert(eq(int, capture_host(root, deep, false, &report, &e), -ENOENT));
	cr_assert(eq(int, capture_host(root, tar, false, &report, &e), -ENOENT));
	mkhost_remove(dir);
	mkhost_remove(root);
}

/* The disk is full in the middle: /dev/full is as full as can be. */
Test(capture, removes_a_half_written_result)
{
	char *root = mkhost_fixture("desktop"), *dir = make_folder();
	AUTO_FREE char *dest = xasprintf("%s/c.tar", dir);
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	struct err e = { 0 };

	signal(SIGXFSZ, SIG_IGN);
	cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 60000, RLIM_INFINITY }), 0));
	cr_assert(lt(int, capture_host(root, dest, false, &report, &e), 0));
	cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &(struct rlimit){ RLIM_INFINITY, RLIM_INFINITY }), 0));
	cr_assert(lt(int, access(dest, F_OK), 0), "nothing is left");
	cr_assert(eq(sz, report.n_files, 0), "untouched on failure");
	mkhost_remove(dir);
	mkhost_remove(root);
}

Test(capture, says_what_is_missing)
{
	char *dir = make_folder();
	char *root = mkhost_text("host odd\ncpu GenuineIntel\nnode 0 socket=0 cpus=0 memory=1G\n"
				 "kind rp 8086:352a 060400 pcie=root link=32x16\nbus 0000:10\n\t10:00.0 rp unreadable\n");
	AUTO_FREE char *dest = xasprintf("%s/c", dir), *cpus = xasprintf("%s/sys/devices/system/cpu", root);
	AUTO_FREE char *moved = xasprintf("%s/gone", root), *second = xasprintf("%s/d", dir);
	CLEANUP(capture_report_clear) struct capture_report report = { 0 }, bare = { 0 };

	capture(root, dest, false, &report);
	cr_assert(eq(sz, report.missing.n, 1));
	cr_assert_not_null(strstr(report.missing.v[0], "1 bridges could be read only in part"), "%s", report.missing.v[0]);
	cr_assert(eq(int, rename(cpus, moved), 0));
	capture(root, second, false, &bare);
	cr_assert_not_null(strstr(bare.missing.v[0], "no CPUs"), "%s", bare.missing.v[0]);
	mkhost_remove(dir);
	mkhost_remove(root);
}

/* --- tars from anywhere --------------------------------------------------------------------------------------- */

struct evil {
	unsigned int type;
	const char *path, *target, *text;
	size_t size; /* 0: that of text */
};

static void write_tar(const char *file, const struct evil *v, size_t n)
{
	struct archive *a = archive_write_new();

	archive_write_set_format_pax_restricted(a);
	cr_assert(eq(int, archive_write_open_filename(a, file), ARCHIVE_OK));
	for (size_t i = 0; i < n; i++) {
		struct archive_entry *entry = archive_entry_new();
		size_t size = v[i].size ? v[i].size : v[i].text ? strlen(v[i].text) : 0;
		AUTO_FREE char *data = xcalloc(size + 1, 1);

		if (v[i].text)
			memcpy(data, v[i].text, strlen(v[i].text));
		archive_entry_set_pathname(entry, v[i].path);
		archive_entry_set_filetype(entry, v[i].type);
		archive_entry_set_perm(entry, 0644);
		archive_entry_set_size(entry, (la_int64_t)size);
		if (v[i].target)
			archive_entry_set_symlink(entry, v[i].target);
		cr_assert(eq(int, archive_write_header(a, entry), ARCHIVE_OK));
		if (size)
			archive_write_data(a, data, size);
		archive_entry_free(entry);
	}
	archive_write_close(a);
	archive_write_free(a);
}

static int unpack(const struct evil *v, size_t n, char **ret_root, struct err *e)
{
	char *dir = make_folder();
	AUTO_FREE char *file = xasprintf("%s/x.tar", dir);
	int r;

	write_tar(file, v, n);
	r = capture_unpack(file, ret_root, e);
	mkhost_remove(dir);
	return r;
}

Test(capture, refuses_names_that_lead_outside)
{
	static const char *const names[] = { "/etc/gpuvm-evil", "../gpuvm-evil", "sys/../../gpuvm-evil", "sys/..", "a//b" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct evil v = { AE_IFREG, names[i], NULL, "x", 0 };
		char *root = NULL;
		struct err e = { 0 };

		cr_assert(eq(int, unpack(&v, 1, &root, &e), -EINVAL), "%s", names[i]);
		cr_assert_null(root);
		cr_assert_not_null(strstr(e.msg, "leads outside"), "%s", e.msg);
	}
	cr_assert(lt(int, access("/etc/gpuvm-evil", F_OK), 0));
	cr_assert(lt(int, access("/tmp/gpuvm-evil", F_OK), 0));
}

Test(capture, never_writes_through_a_link)
{
	static const struct evil v[] = { { AE_IFLNK, "sys/a/x", "../b", NULL, 0 }, { AE_IFREG, "sys/a/x/file", NULL, "x", 0 } };
	char *root = NULL;
	struct err e = { 0 };

	cr_assert(lt(int, unpack(v, 2, &root, &e), 0));
	cr_assert_null(root);
}

Test(capture, leaves_out_links_that_lead_outside)
{
	static const struct evil v[] = {
		{ AE_IFLNK, "sys/one", "/etc/passwd", NULL, 0 },     { AE_IFLNK, "sys/two", "../../etc", NULL, 0 },
		{ AE_IFLNK, "sys/three", "a/../../..", NULL, 0 },    { AE_IFLNK, "sys/four", "..", NULL, 0 },
		{ AE_IFLNK, "sys/a/five", "../b/c", NULL, 0 },	     { AE_IFIFO, "sys/pipe", NULL, NULL, 0 },
		{ AE_IFLNK, "sys/a/six", "../../proc/x", NULL, 0 },
	};
	static const struct {
		const char *path;
		bool there;
	} want[] = { { "sys/one", false },  { "sys/two", false },    { "sys/three", false }, { "sys/four", false },
		     { "sys/pipe", false }, { "sys/a/five", true }, { "sys/a/six", true } };
	char *root = NULL;
	struct err e = { 0 };
	struct stat st;

	cr_assert(eq(int, unpack(v, ARRAY_SIZE(v), &root, &e), 0), "%s", e.msg);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		AUTO_FREE char *path = xasprintf("%s/%s", root, want[i].path);

		cr_assert(eq(int, lstat(path, &st) == 0, want[i].there), "%s", want[i].path);
	}
	cr_assert(eq(int, stat(root, &st), 0));
	cr_assert(eq(uint, st.st_mode & 0777, 0700));
	capture_remove(root);
}

Test(capture, refuses_what_is_too_large)
{
	static const struct evil v[] = { { AE_IFREG, "sys/large", NULL, "x", 5 << 20 } };
	char *root = NULL;
	struct err e = { 0 };

	cr_assert(eq(int, unpack(v, 1, &root, &e), -EFBIG));
	cr_assert_not_null(strstr(e.msg, "too large"), "%s", e.msg);
}

Test(capture, damaged_tars)
{
	char *root = mkhost_fixture("desktop"), *dir = make_folder(), *out = NULL;
	AUTO_FREE char *file = xasprintf("%s/x.tar.gz", dir), *text = xasprintf("%s/text", dir), *empty = xasprintf("%s/empty", dir);
	CLEANUP(capture_report_clear) struct capture_report report = { 0 };
	CLEANUP(topology_clear) struct topology t = { 0 };
	struct err e = { 0 };
	struct stat st;

	capture(root, file, false, &report);
	cr_assert(eq(int, stat(file, &st), 0));
	cr_assert(eq(int, truncate(file, st.st_size / 2), 0));
	cr_assert(eq(int, capture_unpack(file, &out, &e), -EBADMSG), "%s", e.msg);
	cr_assert(eq(int, write_file_atomic(text, "hello\n", 6, 0644), 0));
	cr_assert(eq(int, probe_source(text, NULL, &t, &e), -EBADMSG), "%s", e.msg);
	cr_assert_not_null(strstr(e.msg, "not a tar"), "%s", e.msg);
	cr_assert(eq(int, write_file_atomic(empty, "", 0, 0644), 0));
	cr_assert(eq(int, probe_source(empty, NULL, &t, &e), -EBADMSG), "%s", e.msg);
	cr_assert(eq(int, capture_unpack("/nonexistent.tar", &out, &e), -ENOENT));
	cr_assert_null(out);
	mkhost_remove(dir);
	mkhost_remove(root);
}
