/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "gpuvm/cpuset.h"
#include "gpuvm/err.h"
#include "gpuvm/parse.h"
#include "gpuvm/problems.h"
#include "gpuvm/strv.h"

/* --- cpuset --------------------------------------------------------------------------------------- */

/* clang-format off */
static const struct {
	const char *text;
	int r, count;
	const char *formatted;
} lists[] = {
	{ "", 0, 0, "" },
	{ "0", 0, 1, "0" },
	{ "0-3,8,10-11", 0, 7, "0-3,8,10-11" },
	{ "63,64", 0, 2, "63-64" },
	{ "3,1,2,1", 0, 3, "1-3" },
	{ "5-5", 0, 1, "5" },
	{ "0-8191", 0, 8192, "0-8191" },
	{ "8191", 0, 1, "8191" },
	{ "8192", -ERANGE, 0, NULL },
	{ "99999999999999999999", -ERANGE, 0, NULL },
	/* what hwloc_bitmap_list_sscanf() takes */
	{ "5-2", -EINVAL, 0, NULL },
	{ "0-3x", -EINVAL, 0, NULL },
	{ "-1", -EINVAL, 0, NULL },
	{ "1,", -EINVAL, 0, NULL },
	{ ",1", -EINVAL, 0, NULL },
	{ "1,,2", -EINVAL, 0, NULL },
	{ "1-", -EINVAL, 0, NULL },
	{ "1 2", -EINVAL, 0, NULL },
	{ " 1", -EINVAL, 0, NULL },
	{ "1\n", -EINVAL, 0, NULL },
	{ "0x3", -EINVAL, 0, NULL },
	{ "+1", -EINVAL, 0, NULL },
	{ "0-7:2", -EINVAL, 0, NULL },
};

/* clang-format on */
Test(cpuset, parse_and_format)
{
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		struct cpuset set = {.w = {42}}, before = set;
		int r = cpuset_parse(lists[i].text, &set);
		AUTO_FREE char *text = cpuset_format(&set);

		cr_expect(r == lists[i].r, "'%s' gives %d", lists[i].text, r);
		if (r < 0) {
			cr_expect(cpuset_equal(&set, &before), "'%s' changed the result", lists[i].text);
			continue;
		}
		cr_expect(cpuset_count(&set) == lists[i].count, "'%s'", lists[i].text);
		cr_expect_str_eq(text, lists[i].formatted);
	}
}

Test(cpuset, ordered_lists)
{
	int *cpus = NULL;
	size_t n = 0;

	cr_assert(cpulist_parse_ordered("8,3-5,0", &cpus, &n) == 0 && n == 5);
	cr_expect(cpus[0] == 8 && cpus[1] == 3 && cpus[2] == 4 && cpus[3] == 5 && cpus[4] == 0);
	free(STEAL_PTR(cpus));
	cr_expect(cpulist_parse_ordered("1-3,2", &cpus, &n) == -EINVAL);
	cr_expect(cpulist_parse_ordered("", &cpus, &n) == -EINVAL);
	cr_expect(cpulist_parse_ordered("0-9000", &cpus, &n) == -ERANGE);
	cr_expect(!cpus && n == 5, "changed on failure");
}

static struct cpuset set_of(const char *text)
{
	struct cpuset set;

	cr_assert(cpuset_parse(text, &set) == 0);
	return set;
}

Test(cpuset, operations)
{
	struct cpuset a = set_of("0-3,64"), b = set_of("2-5,8191"), none = {0}, x;
	int last = -1;

	x = a, cpuset_or(&x, &b);
	cr_expect(cpuset_count(&x) == 8);
	x = a, cpuset_and(&x, &b);
	cr_expect(cpuset_count(&x) == 2 && cpuset_has(&x, 2) && cpuset_has(&x, 3));
	cr_expect(cpuset_subset(&x, &a) && cpuset_subset(&x, &b) && !cpuset_subset(&a, &b));
	x = a, cpuset_andnot(&x, &b);
	cr_expect(cpuset_count(&x) == 3 && !cpuset_intersects(&x, &b) && cpuset_intersects(&a, &b));
	cr_expect(cpuset_empty(&none) && cpuset_subset(&none, &a) && cpuset_next(&none, -1) == -1);
	cr_expect(cpuset_next(&b, 5) == 8191 && cpuset_next(&b, 8191) == -1 && cpuset_next(&a, 64) == -1);
	cpuset_for_each (cpu, &b)
		last = cpu;
	cr_expect(last == 8191);
	/* out of range: ignored */
	cpuset_add(&a, -1);
	cpuset_add(&a, CPUSET_MAX);
	cpuset_del(&a, CPUSET_MAX);
	cr_expect(cpuset_count(&a) == 5 && !cpuset_has(&a, -1) && !cpuset_has(&a, CPUSET_MAX));
	cpuset_del(&a, 64);
	cr_expect(cpuset_count(&a) == 4);
}

/* --- parse ---------------------------------------------------------------------------------------- */

/* clang-format off */
static const struct {
	const char *text;
	int r;
	uint64_t value;
} sizes[] = {
	{ "0", 0, 0 },
	{ "4096", 0, 4096 },
	{ "4096B", 0, 4096 },
	{ "2M", 0, UINT64_C(2) << 20 },
	{ "2m", 0, UINT64_C(2) << 20 },
	{ "960 GiB", 0, UINT64_C(960) << 30 },
	{ "960GB", 0, UINT64_C(960) << 30 },
	{ "1.5G", 0, UINT64_C(3) << 29 },
	{ "0.5K", 0, 512 },
	{ "1.000", 0, 1 },
	{ "15.5E", 0, UINT64_C(31) << 59 },
	{ "16777215T", 0, UINT64_C(16777215) << 40 },
	{ "16777216T", -ERANGE, 0 },
	{ "16E", -ERANGE, 0 },
	{ "18446744073709551615", 0, UINT64_MAX },
	{ "18446744073709551616", -ERANGE, 0 },
	{ "0.3K", -EINVAL, 0 },
	{ "1.5", -EINVAL, 0 },
	{ "1.", -EINVAL, 0 },
	{ "1.G", -EINVAL, 0 },
	{ ".5G", -EINVAL, 0 },
	{ "", -EINVAL, 0 },
	{ "G", -EINVAL, 0 },
	{ "-1G", -EINVAL, 0 },
	{ "+1G", -EINVAL, 0 },
	{ " 1G", -EINVAL, 0 },
	{ "1G ", -EINVAL, 0 },
	{ "1 ", -EINVAL, 0 },
	{ "1GG", -EINVAL, 0 },
	{ "1Gi", -EINVAL, 0 },
	{ "1X", -EINVAL, 0 },
	{ "0x10", -EINVAL, 0 },
	{ "1e3", -EINVAL, 0 },
};

/* clang-format on */
Test(parse, size)
{
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint64_t v = 77;
		int r = parse_size(sizes[i].text, &v);

		cr_expect(r == sizes[i].r && v == (r ? 77 : sizes[i].value), "'%s' gives %d, %" PRIu64, sizes[i].text,
			  r, v);
	}
}

Test(parse, size_survives_formatting)
{
	static const uint64_t values[] = {0,         1, 1023, 1024, 3 << 20, UINT64_C(960) << 30, UINT64_C(3) << 39,
					  UINT64_MAX};
	static const char *const texts[] = {"0 bytes", "1 bytes", "1023 bytes", "1 KiB",
					    "3 MiB",   "960 GiB", "1536 GiB",   "18446744073709551615 bytes"};
	char buf[32];

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		cr_expect_str_eq(format_size(values[i], buf), texts[i]);
}

/* clang-format off */
static const struct {
	const char *text;
	int r;
	uint64_t value;
} durations[] = {
	{ "90", 0, 90000 },	 { "90s", 0, 90000 },	{ "500ms", 0, 500 },	   { "2min", 0, 120000 },
	{ "2 min", 0, 120000 },	 { "2m", 0, 120000 },	{ "1h", 0, 3600000 },	   { "0", 0, 0 },
	{ "", -EINVAL, 0 },	 { "s", -EINVAL, 0 },	{ "-1s", -EINVAL, 0 },	   { "1.5s", -EINVAL, 0 },
	{ "5 ", -EINVAL, 0 },	 { "5d", -EINVAL, 0 },	{ "5s ", -EINVAL, 0 },	   { "5S", -EINVAL, 0 },
	{ "9223372036854775807h", -ERANGE, 0 },		{ "99999999999999999999", -ERANGE, 0 },
};

/* clang-format on */
Test(parse, duration)
{
	for (size_t i = 0; i < ARRAY_SIZE(durations); i++) {
		uint64_t v = 77;
		int r = parse_duration(durations[i].text, &v);

		cr_expect(r == durations[i].r && v == (r ? 77 : durations[i].value), "'%s' gives %d, %" PRIu64,
			  durations[i].text, r, v);
	}
}

Test(parse, integers)
{
	uint64_t u = 77;
	int i = 77;

	cr_expect(parse_u64("10", 0, 10, &u) == 0 && u == 10);
	cr_expect(parse_u64("0x1F", 0, 100, &u) == 0 && u == 31);
	cr_expect(parse_u64("18446744073709551615", 0, UINT64_MAX, &u) == 0 && u == UINT64_MAX);
	u = 77;
	cr_expect(parse_u64("11", 0, 10, &u) == -ERANGE);
	cr_expect(parse_u64("1", 2, 10, &u) == -ERANGE);
	cr_expect(parse_u64("0x", 0, 10, &u) == -EINVAL);
	cr_expect(parse_u64("0x0x1", 0, 10, &u) == -EINVAL);
	cr_expect(parse_u64("1 ", 0, 10, &u) == -EINVAL);
	cr_expect(parse_u64("-1", 0, UINT64_MAX, &u) == -EINVAL);
	cr_expect(parse_u64("", 0, 10, &u) == -EINVAL);
	cr_expect(u == 77, "changed on failure");

	cr_expect(parse_int("-5", -10, 10, &i) == 0 && i == -5);
	cr_expect(parse_int("2147483647", INT_MIN, INT_MAX, &i) == 0 && i == INT_MAX);
	i = 77;
	cr_expect(parse_int("2147483648", INT_MIN, INT_MAX, &i) == -ERANGE);
	cr_expect(parse_int("-11", -10, 10, &i) == -ERANGE);
	cr_expect(parse_int("--1", -10, 10, &i) == -EINVAL);
	cr_expect(parse_int("-", -10, 10, &i) == -EINVAL);
	cr_expect(parse_int("0x1", -10, 10, &i) == -EINVAL);
	cr_expect(parse_int("1x", -10, 10, &i) == -EINVAL);
	cr_expect(i == 77, "changed on failure");

	cr_expect(parse_hex("10de", 0xffff, &u) == 0 && u == 0x10de);
	cr_expect(parse_hex("0x030200", 0xffffff, &u) == 0 && u == 0x30200);
	u = 77;
	cr_expect(parse_hex("10000", 0xffff, &u) == -ERANGE);
	cr_expect(parse_hex("0x0x1", 0xffff, &u) == -EINVAL);
	cr_expect(parse_hex("xyz", 0xffff, &u) == -EINVAL);
	cr_expect(u == 77, "changed on failure");
}

Test(parse, bools)
{
	static const char *const yes[] = {"on", "yes", "true", "1", "On"};
	static const char *const no[] = {"off", "no", "false", "0", "OFF"};
	static const char *const neither[] = {"", "2", "o", "onn", "on ", "enabled"};
	bool b;

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		cr_expect(parse_bool(yes[i], &b) == 0 && b, "%s", yes[i]);
		cr_expect(parse_bool(no[i], &b) == 0 && !b, "%s", no[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(neither); i++)
		cr_expect(parse_bool(neither[i], &b) == -EINVAL, "%s", neither[i]);
}

/* clang-format off */
static const struct {
	const char *text, *formatted; /* NULL: refused */
} addrs[] = {
	{ "0000:81:00.0", "0000:81:00.0" },
	{ "81:00.0", "0000:81:00.0" },
	{ "10000:e1:1f.7", "10000:e1:1f.7" },
	{ "ABCD:AB:1F.1", "abcd:ab:1f.1" },
	{ "ffffffff:ff:1f.7", "ffffffff:ff:1f.7" },
	{ "100000000:00:00.0", NULL },
	{ "81:20.0", NULL },
	{ "81:00.8", NULL },
	{ "100:00.0", NULL },
	{ "81:00", NULL },
	{ "81:00.", NULL },
	{ "81:00.0 ", NULL },
	{ " 81:00.0", NULL },
	{ "81:00.0x", NULL },
	{ "0000:81:00.0.0", NULL },
	{ "0:0:81:00.0", NULL },
	{ "0x81:00.0", NULL },
	{ "0000:0x81:00.0", NULL },
	{ ":81:00.0", NULL },
	{ "-1:00.0", NULL },
	{ "", NULL },
	{ ":", NULL },
};

/* clang-format on */
Test(parse, pci_address)
{
	for (size_t i = 0; i < ARRAY_SIZE(addrs); i++) {
		struct pci_addr a = {.bus = 77};
		char buf[PCI_ADDR_STR];
		int r = parse_pci_addr(addrs[i].text, &a);

		cr_expect(r == (addrs[i].formatted ? 0 : -EINVAL), "'%s' gives %d", addrs[i].text, r);
		if (r == 0)
			cr_expect_str_eq(pci_addr_format(&a, buf), addrs[i].formatted);
		else
			cr_expect(a.bus == 77, "'%s' changed the result", addrs[i].text);
	}
}

Test(parse, pci_addresses_are_ordered)
{
	/* each is less than the next */
	static const char *const order[] = {"0000:00:00.0", "0000:00:00.7", "0000:00:01.0", "0000:01:00.0",
					    "0000:ff:1f.7", "0001:00:00.0", "ffff:00:00.0", "10000:00:00.0"};
	struct pci_addr a, b;

	for (size_t i = 0; i + 1 < ARRAY_SIZE(order); i++) {
		cr_assert(parse_pci_addr(order[i], &a) == 0 && parse_pci_addr(order[i + 1], &b) == 0);
		cr_expect(pci_addr_cmp(&a, &b) < 0 && pci_addr_cmp(&b, &a) > 0 && pci_addr_cmp(&a, &a) == 0);
	}
}

Test(parse, edit_distance)
{
	char lots[200];

	memset(lots, 'a', sizeof(lots) - 1);
	lots[sizeof(lots) - 1] = '\0';
	cr_expect(edit_distance("", "") == 0);
	cr_expect(edit_distance("gpus", "gpus") == 0);
	cr_expect(edit_distance("gpus", "") == 4);
	cr_expect(edit_distance("gpsu", "gpus") == 1);
	cr_expect(edit_distance("gpu", "gpus") == 1);
	cr_expect(edit_distance("nmae", "name") == 1);
	cr_expect(edit_distance("kitten", "sitting") == 3);
	cr_expect(edit_distance(lots, "a") > 2);
}

/* --- files ------------------------------------------------------------------------------------------ */

static char *temp_dir(void)
{
	char *dir = xstrdup("/tmp/gpuvm-base-XXXXXX");

	cr_assert(mkdtemp(dir) != NULL);
	return dir;
}

Test(files, atomic_write_replaces_and_leaves_nothing_else)
{
	AUTO_FREE char *dir = temp_dir();
	AUTO_FREE char *path = xasprintf("%s/f", dir), *leftover = xasprintf("%s/f.new", dir), *text = NULL;
	struct stat st;

	cr_assert(write_file_atomic(path, "one\n", 4, 0600) == 0);
	cr_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 && st.st_size == 4);
	/* a crash left this: it must neither be followed nor be in the way */
	cr_assert(symlink("/nonexistent/x", leftover) == 0);
	cr_assert(write_file_atomic(path, "two\n", 4, 0644) == 0);
	cr_assert(read_text_file(path, 100, &text) == 0);
	cr_expect_str_eq(text, "two");
	cr_expect(lstat(leftover, &st) < 0 && errno == ENOENT);
	unlink(path);
	rmdir(dir);
}

Test(files, failed_atomic_write_keeps_the_old_file)
{
	AUTO_FREE char *dir = temp_dir();
	AUTO_FREE char *path = xasprintf("%s/d", dir), *missing = xasprintf("%s/no/f", dir);
	AUTO_FREE char *inside = xasprintf("%s/d/x", dir), *leftover = xasprintf("%s/d.new", dir);

	/* rename() over a folder fails as late as it can */
	cr_assert(mkdir(path, 0700) == 0 && mkdir(inside, 0700) == 0);
	cr_expect(write_file_atomic(path, "x", 1, 0600) < 0);
	cr_expect(access(inside, F_OK) == 0 && access(leftover, F_OK) < 0);
	cr_expect(write_file_atomic(missing, "x", 1, 0600) == -ENOENT);
	rmdir(inside);
	rmdir(path);
	rmdir(dir);
}

Test(files, read)
{
	AUTO_FREE char *dir = temp_dir();
	AUTO_FREE char *path = xasprintf("%s/f", dir), *big = xcalloc(100001, 1), *text = NULL;

	cr_expect(read_text_file(path, 100, &text) == -ENOENT && !text);
	cr_expect(read_text_file(dir, 100, &text) == -EISDIR && !text);
	memset(big, 'x', 100000);
	cr_assert(write_file_atomic(path, big, 100000, 0600) == 0);
	cr_assert(read_text_file(path, 1 << 20, &text) == 0);
	cr_expect(strlen(text) == 100000);
	free(STEAL_PTR(text));
	cr_assert(read_text_file(path, 10, &text) == 0);
	cr_expect(strlen(text) == 10);
	free(STEAL_PTR(text));
	cr_assert(write_file_atomic(path, "", 0, 0600) == 0 && read_text_file(path, 10, &text) == 0);
	cr_expect_str_eq(text, "");
	unlink(path);
	rmdir(dir);
}

/* --- strings ----------------------------------------------------------------------------------------- */

/* clang-format off */
static const char *const awkward[] = {
	"", "plain", "a b", "'", "''", "\"", "\\", "\\\\", "$HOME", "`id`", "$(id)", "a'b\"c\\d", "*", "?", "[a]", "~", "!x",
	"a;b", "a&b", "a|b", "<x>", "#c", "a\tb", "a\nb", "\n", "-n", "--", "{a,b}", "host=0000:81:00.0,id=gpu0", "%s",
	"\xc3\xa4", " lead", "trail ", "a=b", "(x)", "\x01\x7f",
};

/* clang-format on */
Test(shell, quoting_survives_a_shell)
{
	char *script = xstrdup("printf '%s\\0'"), *out = NULL;
	size_t len = 0;
	FILE *sh;

	for (size_t i = 0; i < ARRAY_SIZE(awkward); i++) {
		AUTO_FREE char *quoted = shell_quote(awkward[i]), *before = script;

		script = xasprintf("%s %s", before, quoted);
	}
	sh = popen(script, "re");
	cr_assert(sh != NULL);
	for (size_t i = 0; i < ARRAY_SIZE(awkward); i++) {
		cr_assert(getdelim(&out, &len, '\0', sh) >= 0, "the shell lost an argument");
		cr_expect_str_eq(out, awkward[i]);
	}
	cr_expect(getc(sh) == EOF, "the shell made more arguments");
	cr_expect(pclose(sh) == 0);
	free(out);
	free(script);
}

Test(shell, quoting_survives_our_own_splitting)
{
	char *line = xstrdup("");
	struct strv words = {0};
	struct err e;

	for (size_t i = 0; i < ARRAY_SIZE(awkward); i++) {
		AUTO_FREE char *quoted = shell_quote(awkward[i]), *before = line;

		line = xasprintf("%s\t%s ", before, quoted);
	}
	cr_assert(strv_split_shell(line, &words, &e) == 0);
	cr_assert(words.n == ARRAY_SIZE(awkward) && !words.v[words.n]);
	for (size_t i = 0; i < words.n; i++)
		cr_expect_str_eq(words.v[i], awkward[i]);
	strv_clear(&words);
	free(line);
}

/* clang-format off */
/* What we split, a shell splits the same way: no expansion is involved in these. */
static const char *const lines[] = {
	"a b  c", " a\tb ", "'a b' c", "\"a b\" c", "a\\ b", "'a'\"b\"c", "\"a\\\"b\"", "\"a\\\\b\"", "\"a\\xb\"", "'a\\b'",
	"''", "\"\"", "'' ''", "a''b", "\"'\"", "'\"'", "\\'", "\\\"", "a\\\\b", "\"\\$x\"", "\"\\`x\"", "-device 'x,y=z w'",
};

/* clang-format on */
Test(shell, splitting_is_that_of_a_shell)
{
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		AUTO_FREE char *script = xasprintf("printf '%%s\\0' %s", lines[i]), *out = NULL;
		FILE *sh = popen(script, "re");
		struct strv words = {0};
		struct err e;
		size_t len = 0;

		cr_assert(sh != NULL && strv_split_shell(lines[i], &words, &e) == 0, "%s", lines[i]);
		for (size_t k = 0; k < words.n; k++) {
			cr_assert(getdelim(&out, &len, '\0', sh) >= 0, "%s: too many words", lines[i]);
			cr_expect_str_eq(out, words.v[k], "%s", lines[i]);
		}
		cr_expect(getc(sh) == EOF, "%s: too few words", lines[i]);
		pclose(sh);
		strv_clear(&words);
	}
}

Test(shell, unterminated_quotes)
{
	static const char *const open[] = {"'", "\"", "a 'b", "a \"b", "\"a\\\"", "'a\\' 'b"};
	struct strv words = {0};
	struct err e;

	strv_push(&words, "kept");
	for (size_t i = 0; i < ARRAY_SIZE(open); i++)
		cr_expect(strv_split_shell(open[i], &words, &e) == -EINVAL, "%s", open[i]);
	cr_expect(words.n == 1);
	strv_clear(&words);
	cr_expect(strv_split_shell("  ", &words, &e) == 0 && words.n == 0);
}

Test(strv, is_always_an_argv)
{
	struct strv s = {0};

	for (int i = 0; i < 100; i++)
		strv_pushf(&s, "%d", i);
	cr_expect(s.n == 100 && !s.v[100] && !strcmp(s.v[99], "99"));
	cr_expect(strv_contains(&s, "42") && !strv_contains(&s, "100"));
	strv_clear(&s);
	cr_expect(!s.v && !s.n);
	strv_clear(&s);
}

Test(qopt, doubles_commas_in_values_only)
{
	struct qopt o;
	AUTO_FREE char *text = NULL, *bare = NULL;

	qopt_init(&o, "vfio-pci");
	qopt_str(&o, "host", "0000:81:00.0");
	qopt_str(&o, "id", ",a,,b,");
	qopt_fmt(&o, "bus", "rp%d,%s", 3, "x");
	qopt_u64(&o, "size", UINT64_MAX);
	qopt_bool(&o, "multifunction", true);
	qopt_bool(&o, "rombar", false);
	text = qopt_finish(&o);
	cr_expect_str_eq(text, "vfio-pci,host=0000:81:00.0,id=,,a,,,,b,,,bus=rp3,,x,size=18446744073709551615,"
			       "multifunction=on,rombar=off");
	cr_expect(!o.buf && !o.len);
	qopt_init(&o, "");
	qopt_str(&o, "key", "value");
	bare = qopt_finish(&o);
	cr_expect_str_eq(bare, "key=value");
}

/* --- arrays and errors ------------------------------------------------------------------------------- */

Test(alloc, pushed_elements_are_zeroed_and_stay)
{
	struct pair {
		int a;
		char b[5];
	} *v = NULL;
	size_t n = 0;

	for (int i = 0; i < 1000; i++) {
		struct pair *p = PUSH_ZEROED(v, n);

		cr_assert(p->a == 0 && p->b[4] == 0);
		memset(p, 0xff, sizeof(*p));
		p->a = i;
	}
	cr_assert(n == 1000);
	for (int i = 0; i < 1000; i++)
		cr_assert(v[i].a == i);
	free(v);
}

Test(err, wraps_and_never_overflows)
{
	char lots[3000];
	struct err e = {0};

	memset(lots, 'x', sizeof(lots) - 1);
	lots[sizeof(lots) - 1] = '\0';
	cr_expect(err_set(&e, -EIO, "write '%s'", "f") == -EIO && e.code == -EIO);
	cr_expect(err_wrap(&e, "bind %d", 3) == -EIO);
	cr_expect_str_eq(e.msg, "bind 3: write 'f'");
	cr_expect(err_sys(&e, -ENOENT, "open '%s'", "g") == -ENOENT);
	cr_expect_str_eq(e.msg, "open 'g': No such file or directory");
	err_set(&e, -EIO, "%s", lots);
	err_wrap(&e, "%s", lots);
	err_sys(&e, -EIO, "%s", lots);
	err_wrap(&e, "head");
	cr_expect(strlen(e.msg) < sizeof(e.msg) && !strncmp(e.msg, "head: x", 7));
}

/* --- problems ----------------------------------------------------------------------------------------- */

static void add_two(struct problems *ps)
{
	struct problem *p = problems_add(ps, PROBLEM_BUSY, "gpu-busy", "GPU %d is in use", 3);

	problem_device(p, "0000:81:00.0");
	p = problems_add(ps, PROBLEM_CONFIG, "bad-value", "[cpu] pin: 'x' is \"wrong\"");
	problem_where(p, "a.ini", 7);
	problem_hint(p, "first");
	problem_hint(p, "expected a list");
}

Test(problems, json)
{
	struct problems ps = {0};
	struct json_object *o;

	add_two(&ps);
	o = problems_to_json(&ps, "half0");
	cr_expect_str_eq(
	    json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
	    "{\"schema\":1,\"vm\":\"half0\",\"errors\":["
	    "{\"code\":\"gpu-busy\",\"message\":\"GPU 3 is in use\",\"hint\":null,\"device\":\"0000:81:00.0\","
	    "\"file\":null,\"line\":null},"
	    "{\"code\":\"bad-value\",\"message\":\"[cpu] pin: 'x' is \\\"wrong\\\"\",\"hint\":\"expected a list\","
	    "\"device\":null,\"file\":\"a.ini\",\"line\":7}]}");
	json_object_put(o);
	problems_clear(&ps);
	o = problems_to_json(&ps, NULL);
	cr_expect_str_eq(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
			 "{\"schema\":1,\"vm\":null,\"errors\":[]}");
	json_object_put(o);
}

Test(problems, print_and_exit_code)
{
	struct problems ps = {0};
	AUTO_FREE char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	cr_expect(problems_exit_code(&ps) == 0);
	problems_add(&ps, PROBLEM_BUSY, "gpu-busy", "in use");
	cr_expect(problems_exit_code(&ps) == 5);
	problems_add(&ps, PROBLEM_HOST, "iommu-off", "no IOMMU");
	cr_expect(problems_exit_code(&ps) == 4);
	problem_where(&ps.v[0], "--set", 0);
	add_two(&ps);
	cr_expect(problems_exit_code(&ps) == 3);
	problems_print(&ps, f);
	fclose(f);
	cr_expect_str_eq(text, "--set: in use\nno IOMMU\nGPU 3 is in use\na.ini:7: [cpu] pin: 'x' is \"wrong\"\n"
			       "    expected a list\n");
	problems_clear(&ps);
	cr_expect(!ps.v && !ps.n);
}
