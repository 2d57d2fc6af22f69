/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU commands taken apart and compared. */
#include <criterion/criterion.h>
#include <json-c/json.h>
#include <string.h>

#include "gpuvm/argv_diff.h"
#include "gpuvm/parse.h"

/* --- one option ---------------------------------------------------------------------------------------------------- */

/* "group|type|id|name=value|name=value"; owned. */
static char *describe(const struct argv_option *o)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	fprintf(f, "%s|%s|%s", o->group, o->type, o->id);
	for (size_t i = 0; i < o->n_properties; i++)
		fprintf(f, "|%s=%s", o->properties[i].name, o->properties[i].value);
	fclose(f);
	return text;
}

static void clear(struct argv_option *o)
{
	struct argv_options all = { .v = memcpy(xcalloc(1, sizeof(*o)), o, sizeof(*o)), .n = 1 };

	argv_options_clear(&all);
}

static const struct {
	const char *flag, *value, *want;
} values[] = {
	{ "-device", "vfio-pci,host=0000:17:00.0,id=gpu0,bus=rp0,addr=0x0", "devices|vfio-pci|gpu0|host=0000:17:00.0|bus=rp0|addr=0x0" },
	{ "--device", "nvme,serial=x", "disks|nvme||serial=x" },
	{ "-device", "{\"driver\":\"virtio-blk-pci\",\"id\":\"d\",\"iothread-vq-mapping\":[{\"iothread\":\"io0\"},{\"iothread\":\"io1\",\"vqs\":[1,3]}],"
		     "\"write-cache\":true}",
	  "disks|virtio-blk-pci|d|iothread-vq-mapping.0.iothread=io0|iothread-vq-mapping.1.iothread=io1|iothread-vq-mapping.1.vqs.0=1"
	  "|iothread-vq-mapping.1.vqs.1=3|write-cache=on" },
	{ "-device", "{broken", "devices|{broken|" },
	{ "-object", "memory-backend-memfd,id=ram0,size=1G,share=on", "memory|memory-backend-memfd|ram0|size=1G|share=on" },
	{ "-object", "iothread,id=io0", "disks|iothread|io0" },
	{ "-object", "secret,id=s,data=a,,b,,,,c", "objects|secret|s|data=a,b,,c" },
	{ "-numa", "node,nodeid=0,cpus=0-3,cpus=8-11,memdev=ram0", "memory|node|0|cpus=0-3, 8-11|memdev=ram0" },
	{ "-numa", "dist,src=0,dst=1,val=21", "memory|dist|0-1|val=21" },
	{ "-m", "4G", "memory|||size=4G" },
	{ "-m", "size=4096k,slots=2", "memory|||size=4096k|slots=2" },
	{ "-smp", "4,sockets=2", "cpu|||cpus=4|sockets=2" },
	{ "-cpu", "host,+invtsc,-x2apic,pmu=off,migratable", "cpu|||model=host|invtsc=on|x2apic=off|pmu=off|migratable=on" },
	{ "-machine", "q35,accel=kvm,kernel-irqchip=split", "machine|||type=q35|accel=kvm|kernel-irqchip=split" },
	{ "-accel", "tcg,thread=multi", "machine|tcg||thread=multi" },
	{ "-global", "q35-pcihost.pci-hole64-size=4=T", "machine||q35-pcihost.pci-hole64-size|value=4=T" },
	{ "-set", "device.gpu0.rombar=0", "other||device.gpu0.rombar|value=0" },
	{ "-object", "rng-random,id=e,filename=/dev/urandom", "guest|rng-random|e|filename=/dev/urandom" },
	{ "-drive", "if=pflash,unit=1,format=raw,file=/v,,1", "firmware||pflash-1|format=raw|file=/v,1" },
	{ "-drive", "/a,,b=c,if=none,id=x", "disks||x|file=/a,b=c|if=none" },
	{ "-blockdev", "driver=raw,node-name=n,file.driver=file,file.filename=/x", "disks|raw|n|file.driver=file|file.filename=/x" },
	{ "-blockdev", "{\"driver\":\"raw\",\"node-name\":\"n\",\"file\":{\"driver\":\"file\",\"filename\":\"/x\"},\"read-only\":false}",
	  "disks|raw|n|file.driver=file|file.filename=/x|read-only=off" },
	{ "-netdev", "user,id=n,hostfwd=a,hostfwd=b", "network|user|n|hostfwd=a, b" },
	{ "-chardev", "socket,id=c,path=/x,server=on,wait=off", "control|socket|c|path=/x|server=on|wait=off" },
	{ "-chardev", "socket,id=c,path=/x,server,nowait", "control|socket|c|path=/x|server=on|wait=off" },
	{ "-mon", "chardev=qmp,mode=control", "control||qmp|mode=control" },
	{ "-fw_cfg", "name=opt/x,string=1", "firmware||opt/x|string=1" },
	{ "-fw_cfg", "opt/x,string=1", "firmware||opt/x|string=1" },
	{ "-append", "root=/dev/vda1 a,b=c,,d", "firmware|||value=root=/dev/vda1 a,b=c,,d" },
	{ "-kernel", "{odd}", "firmware|||value={odd}" },
	{ "-S", NULL, "process||" },
	{ "-unheard-of", "word", "other|||value=word" },
	{ "-unheard-of", "a=b,id=c", "other||c|a=b" },
	{ "disk.img", NULL, "other||" },
	{ "-device", "", "devices||" },
	{ "-device", ",", "devices||" },
	{ "-device", "x,=y", "devices|x||=y" },
};

Test(diff, option_values)
{
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct argv_option o = { 0 };
		AUTO_FREE char *got = NULL;

		argv_option_parse(values[i].flag, values[i].value, &o);
		got = describe(&o);
		cr_expect_str_eq(got, values[i].want, "%s %s: %s", values[i].flag, values[i].value, got);
		clear(&o);
	}
}

/* Words as a shell would have them. */
static struct strv words(const char *text)
{
	struct strv v = { 0 };
	struct err e = { 0 };

	cr_assert(strv_split_shell(text, &v, &e) == 0, "%s", e.msg);
	return v;
}

static const struct {
	const char *words;
	bool takes; /* the first word takes the second */
} pairs[] = {
	{ "-m 4G", true },	   { "-S -m", false },	      { "-S disk.img", false },	     { "-nodefaults", false },
	{ "-m", false },	   { "-append -x", true },    { "-append --foo=1", true },   { "-serial -", true },
	{ "-icount -1", true },	   { "--device x", true },    { "-unheard-of x", true },     { "-unheard-of -1", true },
	{ "-unheard-of -", true }, { "-unheard-of -S", false }, { "-unheard-of --S", false }, { "disk.img -m", false },
	{ "-enable-kvm -m", false }, { "-name -x", true },
};

Test(diff, which_flags_take_a_value)
{
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct strv v = words(pairs[i].words);

		cr_expect(argv_takes_value(&v, 0) == pairs[i].takes, "%s", pairs[i].words);
		strv_clear(&v);
	}
}

/* --- two commands ---------------------------------------------------------------------------------------------------- */

static void read_command(const char *text, struct argv_options *ret)
{
	struct strv v = words(text);

	argv_options_read(&v, "/q", NULL, ret);
	strv_clear(&v);
}

/* What is printed, less the two lines with the names; owned. */
static char *compare(const char *a_text, const char *b_text)
{
	struct argv_options a, b;
	struct argv_diff d = { 0 };
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	read_command(a_text, &a);
	read_command(b_text, &b);
	argv_compare(&a, &b, &d);
	argv_diff_print(&d, "A", "B", false, f);
	fclose(f);
	cr_expect((d.n == 0) == (*text == '\0'));
	if (d.n) {
		cr_assert(strncmp(text, "--- A\n+++ B\n", 12) == 0, "%s", text);
		memmove(text, text + 12, strlen(text + 12) + 1);
	}
	argv_diff_clear(&d);
	argv_options_clear(&a);
	argv_options_clear(&b);
	return text;
}

static const struct {
	const char *a, *b, *want;
} commands[] = {
	/* the same, in other words or another order */
	{ "/q -m 4G -S", "/q -m 4G -S", "" },
	{ "/q -m 4G -S", "/q -S -m size=4G", "" },
	{ "/q -device a,id=x -device b,id=y", "/q -device b,id=y --device a,id=x", "" },
	{ "/q -blockdev driver=raw,node-name=n,file.driver=file,read-only=on",
	  "/q -blockdev '{\"node-name\": \"n\", \"driver\": \"raw\", \"read-only\": true, \"file\": {\"driver\": \"file\"}}'", "" },
	/* a property */
	{ "/q -device vfio-pci,host=0000:17:00.0,id=gpu0", "/q -device vfio-pci,host=0000:65:00.0,id=gpu0",
	  "[devices]\n~ -device vfio-pci gpu0: host 0000:17:00.0 -> 0000:65:00.0\n" },
	{ "/q -device vfio-pci,host=1,id=g,rombar=0", "/q -device vfio-pci,host=1,id=g,x-no-mmap=on",
	  "[devices]\n~ -device vfio-pci g: -rombar 0, +x-no-mmap on\n" },
	{ "/q -m 4G", "/q -m 8G", "[memory]\n~ -m: size 4G -> 8G\n" },
	{ "/q -kernel /a", "/q -kernel '/b c'", "[firmware]\n~ -kernel: /a -> '/b c'\n" },
	{ "/q -device a,id=x,romfile=", "/q -device a,id=x,romfile=r", "[devices]\n~ -device a x: romfile '' -> r\n" },
	{ "/q -global a.b=1", "/q -global a.b=2", "[machine]\n~ -global a.b: 1 -> 2\n" },
	/* the same name, of another type */
	{ "/q -object memory-backend-ram,id=ram0,size=1", "/q -object memory-backend-memfd,id=ram0,size=1,hugetlb=on",
	  "[memory]\n~ -object memory-backend-memfd ram0: type memory-backend-ram -> memory-backend-memfd, +hugetlb on\n" },
	{ "/q -device vfio-pci,id=g,host=1", "/q -device pci-testdev,id=g,membar=2",
	  "[devices]\n~ -device pci-testdev g: type vfio-pci -> pci-testdev, -host 1, +membar 2\n" },
	/* whole options; groups in a fixed order */
	{ "/q -S -device a,id=x", "/q -device b,id=y -m 1",
	  "[process]\n- -S\n[memory]\n+ -m 1\n[devices]\n- -device a,id=x\n+ -device b,id=y\n" },
	{ "/q", "/q -append 'a b'", "[firmware]\n+ -append 'a b'\n" },
	/* without a name: in their order, the same ones first */
	{ "/q -device u -device v,a=1 -device v,a=2", "/q -device v,a=2 -device v,a=3 -device u", "[devices]\n~ -device v: a 1 -> 3\n" },
	{ "/q -trace enable=a -trace enable=b", "/q -trace enable=b", "[control]\n- -trace enable=a\n" },
	{ "/q -m 1 -m 2", "/q -m 1 -m 3", "[memory]\n~ -m: size 2 -> 3\n" },
	/* what is in front of the options */
	{ "/q -S", "/usr/bin/strace -D -o '/x y' -- /q -S", "[program]\n+ wrapper '/usr/bin/strace -D -o '\\''/x y'\\'' --'\n" },
	/* too much for a line */
	{ "/q -device a,id=x,p1=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,p2=aaaaaaaaaaaaaaaaaaaaaaaaaaa",
	  "/q -device a,id=x,p1=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb,p2=bbbbbbbbbbbbbbbbbbbbbbbbbbb",
	  "[devices]\n~ -device a x:\n    p1 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa -> bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n"
	  "    p2 aaaaaaaaaaaaaaaaaaaaaaaaaaa -> bbbbbbbbbbbbbbbbbbbbbbbbbbb\n" },
};

Test(diff, commands)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		AUTO_FREE char *got = compare(commands[i].a, commands[i].b), *same = compare(commands[i].b, commands[i].b);

		cr_expect_str_eq(got, commands[i].want, "%s\n%s\n%s", commands[i].a, commands[i].b, got);
		cr_expect_str_eq(same, "");
	}
}

Test(diff, another_binary_and_environment)
{
	struct strv a = words("/q -S"), b = words("/r -S"), env = words("A=1 'B=x=y'"), other = words("B=z");
	struct argv_options x, y;
	struct argv_diff d;
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	argv_options_read(&a, "/q", &env, &x);
	argv_options_read(&b, "/r", &other, &y);
	argv_compare(&x, &y, &d);
	argv_diff_print(&d, "a", "b", true, f);
	fclose(f);
	cr_expect_str_eq(text, "\033[31m--- a\033[0m\n\033[32m+++ b\033[0m\n\033[1m[program]\033[0m\n\033[31m- env A=1\033[0m\n"
			       "\033[33m~ env B: x=y -> z\033[0m\n\033[33m~ binary: /q -> /r\033[0m\n");
	free(text);
	argv_diff_clear(&d);
	argv_options_clear(&x);
	argv_options_clear(&y);
	strv_clear(&a);
	strv_clear(&b);
	strv_clear(&env);
	strv_clear(&other);
}

Test(diff, json)
{
	struct argv_options a, b;
	struct argv_diff d;
	struct json_object *o;

	read_command("/q -device vfio-pci,id=gpu0,host=1 -S", &a);
	read_command("/q -device vfio-pci,id=gpu0,host=2,x=y -append z", &b);
	argv_compare(&a, &b, &d);
	o = argv_diff_to_json(&d, "A", "B");
	cr_expect_str_eq(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN),
			 "{\"schema\":1,\"a\":\"A\",\"b\":\"B\",\"changes\":["
			 "{\"op\":\"remove\",\"group\":\"process\",\"option\":\"-S\",\"type\":null,\"id\":null,\"properties\":[]},"
			 "{\"op\":\"add\",\"group\":\"firmware\",\"option\":\"-append\",\"type\":null,\"id\":null,"
			 "\"properties\":[{\"name\":\"value\",\"a\":null,\"b\":\"z\"}]},"
			 "{\"op\":\"change\",\"group\":\"devices\",\"option\":\"-device\",\"type\":\"vfio-pci\",\"id\":\"gpu0\","
			 "\"properties\":[{\"name\":\"host\",\"a\":\"1\",\"b\":\"2\"},{\"name\":\"x\",\"a\":null,\"b\":\"y\"}]}]}");
	json_object_put(o);
	argv_diff_clear(&d);
	argv_options_clear(&a);
	argv_options_clear(&b);
}

/* --- whatever the characters ------------------------------------------------------------------------------------------ */

static uint32_t next_random(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Mostly what has a meaning to QEMU or a shell; every byte but NUL now and then. */
static void random_text(uint32_t *seed, char buf[64])
{
	static const char special[] = ",,,,==:;'\"\\$`#%*?[]{}()<>|&!~ \t\n-+./ab\xc3\xa4";
	size_t n = next_random(seed) % 24;

	for (size_t i = 0; i < n; i++) {
		uint32_t r = next_random(seed);

		buf[i] = r % 8 ? special[r / 8 % (sizeof(special) - 1)] : (char)(1 + r / 8 % 255);
	}
	buf[n] = '\0';
}

Test(diff, qopt_comes_back)
{
	for (uint32_t seed = 1; seed <= 20000; seed++) {
		uint32_t s = seed * 2654435761u | 1;
		char a[64], b[64];
		struct argv_option o = { 0 };
		struct qopt q;
		AUTO_FREE char *text = NULL;

		random_text(&s, a);
		random_text(&s, b);
		qopt_init(&q, "drv");
		qopt_str(&q, "id", "x");
		qopt_str(&q, "first", a);
		qopt_str(&q, "second", b);
		text = qopt_finish(&q);
		argv_option_parse("-device", text, &o);
		cr_assert_str_eq(o.type, "drv");
		cr_assert_str_eq(o.id, "x");
		cr_assert(o.n_properties == 2, "seed %u: %s", seed, text);
		cr_assert_str_eq(argv_option_get(&o, "first"), a, "seed %u", seed);
		cr_assert_str_eq(argv_option_get(&o, "second"), b, "seed %u", seed);
		clear(&o);
	}
}

/* Any bytes are taken apart without harm, and are equal to themselves. */
Test(diff, nonsense_is_harmless)
{
	static const char *const flags[] = { "-device", "-cpu", "-numa", "-global", "-append", "-blockdev", "-x", "-S" };

	for (uint32_t seed = 1; seed <= 5000; seed++) {
		uint32_t s = seed * 2654435761u | 1;
		struct strv argv = { 0 };
		struct argv_options a, b;
		struct argv_diff d;
		char text[64];

		strv_push(&argv, "/q");
		for (int i = 0; i < 4; i++) {
			random_text(&s, text);
			if (next_random(&s) % 4)
				strv_push(&argv, flags[next_random(&s) % ARRAY_SIZE(flags)]);
			strv_push(&argv, text);
		}
		argv_options_read(&argv, "/q", NULL, &a);
		argv_options_read(&argv, NULL, NULL, &b);
		argv_compare(&a, &b, &d);
		cr_assert(d.n == 0, "seed %u", seed);
		argv_diff_clear(&d);
		argv_options_clear(&a);
		argv_options_clear(&b);
		strv_clear(&argv);
	}
}

/* A thousand strings through one real shell. */
Test(diff, shell_quote_comes_back, .timeout = 60)
{
	char path[] = "/tmp/gpuvm-quote-XXXXXX", text[64];
	struct strv sent = { 0 };
	uint32_t s = 12345;
	FILE *script, *out;
	int fd = mkstemp(path);

	cr_assert(fd >= 0);
	script = fdopen(fd, "w");
	fputs("printf '%s\\0'", script);
	for (int i = 0; i < 1000; i++) {
		AUTO_FREE char *quoted = NULL;

		random_text(&s, text);
		strv_push(&sent, text);
		quoted = shell_quote(text);
		fprintf(script, " \\\n%s", quoted);
	}
	fputc('\n', script);
	fclose(script);
	for (int shell = 0; shell < 3; shell++) {
		static const char *const shells[] = { "sh", "dash", "bash" };
		AUTO_FREE char *command = xasprintf("%s %s", shells[shell], path), *word = NULL;
		size_t size = 0;

		out = popen(command, "r");
		for (size_t i = 0; i < sent.n; i++) {
			cr_assert(getdelim(&word, &size, '\0', out) > 0, "%s: word %zu is missing", shells[shell], i);
			cr_assert_str_eq(word, sent.v[i], "%s: word %zu", shells[shell], i);
		}
		cr_assert(getdelim(&word, &size, '\0', out) < 0);
		cr_assert(pclose(out) == 0);
	}
	strv_clear(&sent);
	unlink(path);
}
