/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "gpuvm/config.h"

/* --- helpers ----------------------------------------------------------------------------------- */

#define FILE_NAME "t.ini"

/* All problems as "line code: message [hint]" lines, in the order of the list; owned. */
static char *describe(const struct problems *ps)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < ps->n; i++) {
		const struct problem *p = &ps->v[i];

		cr_assert((int)p->kind == PROBLEM_CONFIG);
		fprintf(f, "%s:%d %s: %s [%s]\n", p->file ? p->file : "-", p->line, p->code, p->message,
			p->hint ? p->hint : "");
	}
	fclose(f);
	return text;
}

static int parse_sets(const char *text, size_t len, const struct strv *sets, struct vm_config *vm, char **ret_problems)
{
	struct problems ps = {0};
	int r = config_parse(FILE_NAME, text, len, sets, vm, &ps);

	cr_assert(r == (ps.n ? -EINVAL : 0));
	*ret_problems = describe(&ps);
	problems_clear(&ps);
	return r;
}

/* Parse what must be right. */
static struct vm_config good(const char *text)
{
	struct vm_config vm;
	char *problems;
	int r = parse_sets(text, strlen(text), NULL, &vm, &problems);

	cr_assert(r == 0, "%s\n---\n%s", text, problems);
	free(problems);
	return vm;
}

static void expect(const char *text, size_t len, const struct strv *sets, const char *want)
{
	struct vm_config vm, zero = {0};
	char *problems;

	parse_sets(text, len, sets, &vm, &problems);
	cr_expect(strcmp(problems, want) == 0, "definition:\n%s\nproblems:\n%s\nexpected:\n%s", text, problems, want);
	if (*want)
		cr_expect(memcmp(&vm, &zero, sizeof(vm)) == 0, "a refused definition must be cleared");
	config_clear(&vm);
	free(problems);
}

/* --- wrong definitions: every message --------------------------------------------------------------- */

#define NAMED "[vm]\nname = a\n"
#define NAME_FORM "letters, digits, '-', '_' and '.', not beginning with '-' or '.', at most "
#define A50 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" /* inih cuts a section name at 49 bytes */
#define SECTION_FORM "expected a letter, then letters, digits, '-', '_' and '.', at most 32 characters"

/* clang-format off */
static const struct {
	const char *text, *problems;
} bad[] = {
	/* lines */
	{ "", "t.ini:0 missing-key: [vm] name: is required [for example 'name = half0']\n" },
	{ "[vm]\n", "t.ini:1 missing-key: [vm] name: is required [for example 'name = half0']\n" },
	{ NAMED "junk\n", "t.ini:3 syntax: cannot read 'junk' [expected '[section]', 'key = value' or a comment]\n" },
	{ NAMED "= x\n", "t.ini:3 syntax: cannot read '= x' [expected '[section]', 'key = value' or a comment]\n" },
	{ NAMED "machine: q35\n",
	  "t.ini:3 syntax: cannot read 'machine: q35' [expected '[section]', 'key = value' or a comment]\n" },
	{ NAMED "machine: q35 = x\n",
	  "t.ini:3 syntax: cannot read 'machine: q35 = x' [expected '[section]', 'key = value' or a comment]\n" },
	{ NAMED ":= x\n", "t.ini:3 syntax: cannot read ':= x' [expected '[section]', 'key = value' or a comment]\n" },
	{ NAMED "junk ; machine = q35\n", "t.ini:3 unknown-key: [vm] unknown key 'junk ; machine' []\n" },
	{ NAMED "\xef\xbb\xbf" "accel = kvm\n",
	  "t.ini:3 unknown-key: [vm] unknown key '\xef\xbb\xbf" "accel' []\n" },
	{ NAMED "junk\n\n  more\n\x01\n; comment\nname = b\n",
	  "t.ini:3 syntax: cannot read 'junk' [expected '[section]', 'key = value' or a comment]\n"
	  "t.ini:5 indented-line: a line begins with a blank [begin it in the first column; a value is one line]\n"
	  "t.ini:6 bad-byte: byte 0x01 in column 1 [a definition is plain text in UTF-8]\n"
	  "t.ini:8 duplicate-key: [vm] name: is set in line 2 already [remove one of the two]\n" },
	{ "name = a\n" NAMED,
	  "t.ini:1 key-outside-section: key 'name = a' comes before the first [section] [begin with [vm]]\n" },
	{ NAMED "append = a\n  b = c\n",
	  "t.ini:4 indented-line: a line begins with a blank [begin it in the first column; a value is one line]\n"
	  "t.ini:3 conflict: [vm] append: has no effect without a kernel [add 'kernel = /path/to/vmlinuz']\n" },
	{ NAMED " [cpu]\nvcpus = 2\n",
	  "t.ini:3 indented-line: a line begins with a blank [begin it in the first column; a value is one line]\n" },
	{ NAMED "accel = kvm\x01\n",
	  "t.ini:3 bad-byte: byte 0x01 in column 12 [a definition is plain text in UTF-8]\n" },
	{ NAMED "accel = k\rvm\r\n",
	  "t.ini:3 bad-byte: byte 0x0d in column 10 [a definition is plain text in UTF-8]\n" },
	{ NAMED "# latin1: \xe4h\n",
	  "t.ini:3 bad-byte: byte 0xe4 in column 11 [a definition is plain text in UTF-8]\n" },
	{ NAMED "# surrogate: \xed\xa0\x80\n",
	  "t.ini:3 bad-byte: byte 0xed in column 14 [a definition is plain text in UTF-8]\n" },
	{ NAMED "# overlong: \xc0\xaf \n",
	  "t.ini:3 bad-byte: byte 0xc0 in column 13 [a definition is plain text in UTF-8]\n" },

	/* sections */
	{ NAMED "[plcae]\ngpus = 4\n",
	  "t.ini:3 unknown-section: unknown section 'plcae' [did you mean [place]?]\n" },
	{ NAMED "[VM]\nnmae = b\n", "t.ini:3 unknown-section: unknown section 'VM' [did you mean [vm]?]\n" },
	{ NAMED "[disks os]\nfile = /x\n",
	  "t.ini:3 unknown-section: unknown section 'disks' [did you mean [disk NAME]?]\n" },
	{ NAMED "[hooks]\npre-bind = x\n", "t.ini:4 bad-value: [hooks] pre-bind: 'x' is not an absolute path [expected an absolute path]\n" },
	{ NAMED "[fabrics]\nmode = auto\n", "t.ini:3 unknown-section: unknown section 'fabrics' [did you mean [fabric]?]\n" },
	{ NAMED "[templates]\nname = b\njunk\n",
	  "t.ini:3 unknown-section: unknown section 'templates' []\n"
	  "t.ini:5 syntax: cannot read 'junk' [expected '[section]', 'key = value' or a comment]\n" },
	{ NAMED "[cpu\nname = b\n", "t.ini:3 bad-section: '[cpu': the ']' is missing []\n" },
	{ NAMED "[cpu ; x]\nvcpus = 4\n", "t.ini:3 bad-section: [cpu] takes no name [write [cpu]]\n" },
	{ NAMED "[disk " A50 "]\nfile = /x\n[disk b]\nfile = /y\n",
	  "t.ini:3 bad-section: [disk] name '" A50 "' is not a name [" SECTION_FORM "]\n" },
	{ NAMED "[" A50 " x]\nname = b\n", "t.ini:3 unknown-section: unknown section '" A50 "' []\n" },
	{ NAMED "[]\n", "t.ini:3 unknown-section: unknown section '' []\n" },
	{ NAMED "[cpu\nvcpus = 4\n", "t.ini:3 bad-section: '[cpu': the ']' is missing []\n" },
	{ NAMED "[cpu] x\nvcpus = 4\n", "t.ini:3 bad-section: '[cpu] x': text after the ']' []\n" },
	{ NAMED "[cpu] ; x\n",
	  "t.ini:3 bad-section: '[cpu] ; x': text after the ']' [a comment needs a line of its own]\n" },
	{ NAMED "[cpu big]\nvcpus = 4\n", "t.ini:3 bad-section: [cpu] takes no name [write [cpu]]\n" },
	{ NAMED "[disk]\nfile = /x\n", "t.ini:3 bad-section: [disk] needs a name [write [disk NAME]]\n" },
	{ NAMED "[disk 0]\nfile = /x\n", "t.ini:3 bad-section: [disk] name '0' is not a name [" SECTION_FORM "]\n" },
	{ NAMED "[disk a,b]\nfile = /x\n",
	  "t.ini:3 bad-section: [disk] name 'a,b' is not a name [" SECTION_FORM "]\n" },
	{ NAMED "[disk \"os\"]\nfile = x\n",
	  "t.ini:3 bad-section: [disk] name '\"os\"' is not a name [" SECTION_FORM "]\n"
	  "t.ini:4 bad-value: [disk _os_] file: 'x' is not an absolute path [expected an absolute path]\n" },
	{ NAMED "[cpu]\n[memory]\n[cpu]\n",
	  "t.ini:5 duplicate-section: [cpu] is in line 3 already [put its keys together]\n" },
	{ NAMED "[disk os]\nfile = /x\n[disk os]\nfile = /y\n",
	  "t.ini:5 duplicate-section: [disk os] is in line 3 already [put its keys together]\n"
	  "t.ini:6 duplicate-key: [disk os] file: is set in line 4 already [remove one of the two]\n" },

	/* keys */
	{ NAMED "nmae = b\n", "t.ini:3 unknown-key: [vm] unknown key 'nmae' [did you mean 'name'?]\n" },
	{ NAMED "firm = ovmf\n", "t.ini:3 unknown-key: [vm] unknown key 'firm' [did you mean 'firmware'?]\n" },
	{ NAMED "vcpus = 4\n", "t.ini:3 unknown-key: [vm] unknown key 'vcpus' ['vcpus' belongs in [cpu]]\n" },
	{ NAMED "bootindex = 4\n",
	  "t.ini:3 unknown-key: [vm] unknown key 'bootindex' ['bootindex' belongs in [disk NAME]]\n" },
	{ NAMED A50 " = 4\n", "t.ini:3 unknown-key: [vm] unknown key '" A50 "' []\n" },
	{ NAMED "zzz = 4\n", "t.ini:3 unknown-key: [vm] unknown key 'zzz' []\n" },
	{ NAMED "[place]\ngpu_index = 0\n",
	  "t.ini:4 unknown-key: [place] unknown key 'gpu_index' [did you mean 'gpu-index'?]\n" },
	{ NAMED "[place]\nswitches = auto\n", "t.ini:4 unknown-key: [place] unknown key 'switches' []\n" },
	{ NAMED "[pcie]\nacs = on\n",
	  "t.ini:4 bad-value: [pcie] acs: 'on' is not one of keep or direct-translated [expected keep or direct-translated]\n" },
	{ NAMED "[lifecycle]\non-crash = dump\n",
	  "t.ini:4 bad-value: [lifecycle] on-crash: 'dump' is not one of stop or restart [expected stop or restart]\n" },
	{ NAMED "[security]\ngroup = q\n", "t.ini:4 unknown-key: [security] unknown key 'group' []\n" },
	{ NAMED "[net a]\nhelper = /x\n", "t.ini:4 unknown-key: [net a] unknown key 'helper' []\n" },
	{ NAMED "[guest]\nballoon = on\n", "t.ini:4 unknown-key: [guest] unknown key 'balloon' []\n" },
	{ NAMED "[cloud-init]\nuser_data = /u\n",
	  "t.ini:4 unknown-key: [cloud-init] unknown key 'user_data' [did you mean 'user-data'?]\n" },
	{ NAMED "[cloud_init]\nuser-data = /u\n",
	  "t.ini:3 unknown-section: unknown section 'cloud_init' [did you mean [cloud-init]?]\n" },
	{ NAMED "name = b\n", "t.ini:3 duplicate-key: [vm] name: is set in line 2 already [remove one of the two]\n" },
	{ NAMED "[disk os]\n",
	  "t.ini:3 missing-key: [disk os] file: is required [for example 'file = /var/lib/gpuvm/disks/half0.qcow2']\n" },
	{ NAMED "[device g]\n",
	  "t.ini:3 missing-key: [device g] pci: is required [for example 'pci = 0000:17:00.0']\n" },
	{ NAMED "uuid =\n", "t.ini:3 bad-value: [vm] uuid: has no value [leave the line out for the default]\n" },

	/* values */
	{ "[vm]\nname = a/b\n", "t.ini:2 bad-value: [vm] name: 'a/b' is not a name [expected " NAME_FORM "48 characters]\n" },
	{ "[vm]\nname = .a\n", "t.ini:2 bad-value: [vm] name: '.a' is not a name [expected " NAME_FORM "48 characters]\n" },
	{ "[vm]\nname = \"a\"\n",
	  "t.ini:2 bad-value: [vm] name: '\"a\"' is not a name [values are written without quotes]\n" },
	{ "[vm]\nname = a ; b\n",
	  "t.ini:2 bad-value: [vm] name: 'a ; b' is not a name [a comment needs a line of its own]\n" },
	{ "[vm]\nname = a23456789012345678901234567890123456789012345678x\n",
	  "t.ini:2 bad-value: [vm] name: 'a23456789012345678901234567890123456789012345678x' is too long: 49 characters, "
	  "at most 48 [expected " NAME_FORM "48 characters]\n" },
	{ NAMED "uuid = 1234\n",
	  "t.ini:3 bad-value: [vm] uuid: '1234' is not a UUID [expected auto, or a UUID like "
	  "6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11]\n" },
	{ NAMED "firmware = uefi\n",
	  "t.ini:3 bad-value: [vm] firmware: 'uefi' is not an absolute path [expected auto, ovmf, seabios, or an absolute "
	  "path]\n" },
	{ NAMED "firmware = seabois\n",
	  "t.ini:3 bad-value: [vm] firmware: 'seabois' is not an absolute path [did you mean 'seabios'?]\n" },
	{ NAMED "firmware = /x.fd # mine\n",
	  "t.ini:3 bad-value: [vm] firmware: '/x.fd # mine' has a comment in it [a comment needs a line of its own]\n" },
	{ NAMED "accel = xen\n",
	  "t.ini:3 bad-value: [vm] accel: 'xen' is not one of auto, kvm or tcg [expected auto, kvm or tcg]\n" },
	{ NAMED "accel = KVM\n",
	  "t.ini:3 bad-value: [vm] accel: 'KVM' is not one of auto, kvm or tcg [did you mean 'kvm'?]\n" },
	{ NAMED "machine = q35 ; new\n",
	  "t.ini:3 bad-value: [vm] machine: 'q35 ; new' is more than one word [a comment needs a line of its own]\n" },
	{ NAMED "[place]\ngpus = four\n",
	  "t.ini:4 bad-value: [place] gpus: 'four' is not a number [expected a number from 0 to 256]\n" },
	{ NAMED "[place]\ngpus = 4 ; all\n",
	  "t.ini:4 bad-value: [place] gpus: '4 ; all' is not a number [a comment needs a line of its own]\n" },
	{ NAMED "accel = kvm\t;x\n",
	  "t.ini:3 bad-value: [vm] accel: 'kvm\t;x' is not one of auto, kvm or tcg [a comment needs a line of its own]\n" },
	{ NAMED "uuid = ; none\n",
	  "t.ini:3 bad-value: [vm] uuid: '; none' is not a UUID [expected auto, or a UUID like "
	  "6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11]\n" },
	{ NAMED "[place]\ngpus = -1\n",
	  "t.ini:4 bad-value: [place] gpus: '-1' is out of range (0 to 256) [expected a number from 0 to 256]\n" },
	{ NAMED "[place]\ngpus = 4x\ngpu-index = 99999999999999999999\n",
	  "t.ini:4 bad-value: [place] gpus: '4x' is not a number [expected a number from 0 to 256]\n"
	  "t.ini:5 bad-value: [place] gpu-index: '99999999999999999999' is out of range (0 to 255) [expected auto, or a "
	  "number from 0 to 255]\n" },
	{ NAMED "[place]\nnics = per_gpu\n",
	  "t.ini:4 bad-value: [place] nics: 'per_gpu' is not a number [did you mean 'per-gpu'?]\n" },
	{ NAMED "[device g]\npci = 17:00.8\n",
	  "t.ini:4 bad-value: [device g] pci: '17:00.8' is not a PCI address [expected a PCI address like "
	  "0000:17:00.0]\n" },
	{ NAMED "[device g]\npci = 17:00.0\nrombar = maybe\ngpudirect-clique = 16\n",
	  "t.ini:5 bad-value: [device g] rombar: 'maybe' is not on or off [expected on or off]\n"
	  "t.ini:6 bad-value: [device g] gpudirect-clique: '16' is out of range (0 to 15) [expected none, or a number "
	  "from 0 to 15]\n" },
	{ NAMED "[cpu]\nvcpus = 0\nthreads = 3\n",
	  "t.ini:4 bad-value: [cpu] vcpus: '0' is out of range (1 to 4096) [expected auto, or a number from 1 to 4096]\n"
	  "t.ini:5 bad-value: [cpu] threads: '3' is out of range (1 to 2) [expected auto, or a number from 1 to 2]\n" },
	{ NAMED "[cpu]\npin = 5-2\nemulator = 0-3x\n",
	  "t.ini:4 bad-value: [cpu] pin: '5-2' is not a CPU list [expected auto, off, or a CPU list like 4-27,100-123]\n"
	  "t.ini:5 bad-value: [cpu] emulator: '0-3x' is not a CPU list [expected auto, or a CPU list like 4-27,100-123]\n" },
	{ NAMED "[cpu]\npin = 1,2,1\nemulator = 9999\n",
	  "t.ini:4 bad-value: [cpu] pin: '1,2,1' names a CPU twice [expected auto, off, or a CPU list like "
	  "4-27,100-123]\n"
	  "t.ini:5 bad-value: [cpu] emulator: '9999' has a CPU number above 8191 [expected auto, or a CPU list like "
	  "4-27,100-123]\n" },
	{ NAMED "[memory]\nsize = 960X\n",
	  "t.ini:4 bad-value: [memory] size: '960X' is not a size [expected auto, or a size like 512M, 960G or 1.5T from "
	  "16 MiB to 64 TiB]\n" },
	{ NAMED "[memory]\nsize = 960\n",
	  "t.ini:4 bad-value: [memory] size: '960' is out of range (16 MiB to 64 TiB) [expected auto, or a size like "
	  "512M, 960G or 1.5T from 16 MiB to 64 TiB]\n" },
	{ NAMED "[memory]\nhugepages = 4M\nsize = 99999999999T\n",
	  "t.ini:4 bad-value: [memory] hugepages: '4M' is not a huge page size of x86 [expected auto, 1G, 2M, off]\n"
	  "t.ini:5 bad-value: [memory] size: '99999999999T' is out of range (16 MiB to 64 TiB) [expected auto, or a size "
	  "like 512M, 960G or 1.5T from 16 MiB to 64 TiB]\n" },
	{ NAMED "[pcie]\ntopology = mirrored\nmmio64 = 32T\n",
	  "t.ini:4 bad-value: [pcie] topology: 'mirrored' is not one of mirror, root-port or flat [did you mean "
	  "'mirror'?]\n"
	  "t.ini:5 bad-value: [pcie] mmio64: '32T' is out of range (1 GiB to 16 TiB) [expected auto, or a size like "
	  "512M, 960G or 1.5T from 1 GiB to 16 TiB]\n" },
	{ NAMED "[net m]\nmac = 53:54:00:12:34:56\n",
	  "t.ini:4 bad-value: [net m] mac: '53:54:00:12:34:56' is a multicast address, which no interface can have "
	  "[expected auto, or a unicast MAC address like 52:54:00:12:34:56]\n" },
	{ NAMED "[net m]\nmac = 00:00:00:00:00:00\n",
	  "t.ini:4 bad-value: [net m] mac: '00:00:00:00:00:00' is all zeros, which no interface can have [expected auto, "
	  "or a unicast MAC address like 52:54:00:12:34:56]\n" },
	{ NAMED "[net m]\nmac = 52:54:00:12:34\n",
	  "t.ini:4 bad-value: [net m] mac: '52:54:00:12:34' is not a MAC address [expected auto, or a unicast MAC address "
	  "like 52:54:00:12:34:56]\n" },
	{ NAMED "[net m]\ntype = tap\nifname = averylongtapname\n",
	  "t.ini:5 bad-value: [net m] ifname: 'averylongtapname' is too long: 16 characters, at most 15 [expected auto, or "
	  NAME_FORM "15 characters]\n" },
	{ NAMED "[net m]\ntype = bridge\nbridge = br 0\n",
	  "t.ini:5 bad-value: [net m] bridge: 'br 0' is not a name [expected " NAME_FORM "15 characters]\n" },
	{ NAMED "[disk a]\nfile = /a\nbus = ide\ndiscard = trim\nserial = a23456789012345678901\n[disk b]\nfile = /b\nserial = a b\n",
	  "t.ini:5 bad-value: [disk a] bus: 'ide' is not one of blk or scsi [expected blk or scsi]\n"
	  "t.ini:6 bad-value: [disk a] discard: 'trim' is not on or off [expected on or off]\n"
	  "t.ini:7 bad-value: [disk a] serial: 'a23456789012345678901' is too long: 21 characters, at most 20 [expected auto, or one word of at "
	  "most 20 characters]\n"
	  "t.ini:10 bad-value: [disk b] serial: 'a b' is more than one word [expected auto, or one word of at most 20 characters]\n" },
	{ NAMED "[guest]\ntpm = 2.0\nvsock = 2\n",
	  "t.ini:4 bad-value: [guest] tpm: '2.0' is not on or off [expected on or off]\n"
	  "t.ini:5 bad-value: [guest] vsock: '2' is out of range (3 to 2147483647) [expected off, auto, or a number from 3 to 2147483647]\n" },
	{ NAMED "[cloud-init]\nuser-data = seed.yaml\n",
	  "t.ini:4 bad-value: [cloud-init] user-data: 'seed.yaml' is not an absolute path [expected an absolute path]\n" },
	{ NAMED "[cpu]\npmu = no perf\ninvtsc = auto\ncpu-pm = idle\n[memory]\nmem-lock = all\n",
	  "t.ini:4 bad-value: [cpu] pmu: 'no perf' is not on or off [expected on or off]\n"
	  "t.ini:5 bad-value: [cpu] invtsc: 'auto' is not on or off [expected on or off]\n"
	  "t.ini:6 bad-value: [cpu] cpu-pm: 'idle' is not on or off [expected on or off]\n"
	  "t.ini:8 bad-value: [memory] mem-lock: 'all' is not on or off [expected on or off]\n" },
	{ NAMED "[lifecycle]\nready-timeout = 0\nstop-timeout = soon\n",
	  "t.ini:4 bad-value: [lifecycle] ready-timeout: '0' is out of range (1 ms to 604800 s) [expected auto, or a time "
	  "like 500ms, 90s or 5min from 1 ms to 604800 s]\n"
	  "t.ini:5 bad-value: [lifecycle] stop-timeout: 'soon' is not a time [expected a time like 500ms, 90s or 5min "
	  "from 0 ms to 604800 s]\n" },
	{ NAMED "[qemu]\nargs = -name \"x\nenv = A=1 B\nbinary = qemu\n",
	  "t.ini:5 bad-value: [qemu] env: 'A=1 B' has a word that is not NAME=VALUE [expected NAME=VALUE words]\n"
	  "t.ini:6 bad-value: [qemu] binary: 'qemu' is not an absolute path [expected auto, or an absolute path]\n"
	  "t.ini:4 bad-value: [qemu] args: a quote is opened and never closed []\n" },
	{ NAMED "[qemu]\nenv = 'A=1\n",
	  "t.ini:4 bad-value: [qemu] env: ''A=1' has a quote that is not closed [expected NAME=VALUE words]\n" },

	/* combinations */
	{ NAMED "initrd = /i\nappend = quiet\n",
	  "t.ini:3 conflict: [vm] initrd: has no effect without a kernel [add 'kernel = /path/to/vmlinuz']\n"
	  "t.ini:4 conflict: [vm] append: has no effect without a kernel [add 'kernel = /path/to/vmlinuz']\n" },
	{ NAMED "[place]\ngpu-index = 4\n",
	  "t.ini:4 conflict: [place] gpu-index: is set, but the VM takes no GPUs [add 'gpus = N' to [place]]\n" },
	{ NAMED "[place]\ngpus = 0\ngpu-index = 0\n",
	  "t.ini:5 conflict: [place] gpu-index: is set, but the VM takes no GPUs [add 'gpus = N' to [place]]\n" },
	{ NAMED "[place]\nnics = per-gpu\n",
	  "t.ini:4 conflict: [place] nics: 'per-gpu' means next to the VM's GPUs, and it has none [add 'gpus = N', or name "
	  "the device in a [device NAME]]\n" },
	{ NAMED "[cpu]\nvcpus = 4\npin = 0-2\n",
	  "t.ini:5 conflict: [cpu] pin: lists 3 host CPUs for 4 vCPUs [list one host CPU for each vCPU, or leave vcpus "
	  "out]\n" },
	{ NAMED "[cpu]\nthreads = 2\npin = 0-2\n",
	  "t.ini:5 conflict: [cpu] pin: lists 3 host CPUs, which threads = 2 cannot divide into cores [list the two "
	  "threads of each core one after the other]\n" },
	{ NAMED "[cpu]\nvcpus = 5\nthreads = 2\n",
	  "t.ini:4 conflict: [cpu] vcpus: 5 vCPUs cannot be cores of threads = 2 [use an even number, or threads = 1]\n" },
	{ NAMED "[device a]\npci = 17:00.0\n[device b]\npci = 18:00.0\n[device c]\npci = 0000:17:00.0\n",
	  "t.ini:8 conflict: [device c] pci: 0000:17:00.0 is also [device a] []\n" },
	{ NAMED "[device a]\npci = 17:00.0\nrombar = off\nromfile = /r\n",
	  "t.ini:6 conflict: [device a] romfile: is never seen by the guest with rombar = off [remove one of the two]\n" },
	{ NAMED "[disk a]\nfile = /a\nbootindex = 1\n[disk b]\nfile = /b\nbootindex = 1\n",
	  "t.ini:8 conflict: [disk b] bootindex: 1 is also that of [disk a] [give each disk a number of its own, or leave "
	  "them out]\n" },
	{ NAMED "[disk a]\nfile = /a\nreadonly = on\n[disk b]\nfile = /a\n",
	  "t.ini:7 conflict: [disk b] file: '/a' is also that of [disk a] [only disks that are all readonly can share a "
	  "file]\n" },
	{ NAMED "machine = pc\n",
	  "t.ini:3 bad-value: [vm] machine: 'pc' is not a q35 machine [expected q35, or a version of it like "
	  "pc-q35-7.2]\n" },
	{ NAMED "[disk a]\nfile = /a\naio = native\n",
	  "t.ini:5 conflict: [disk a] aio: native needs a cache mode that bypasses the page cache [use cache = none or "
	  "directsync, or aio = threads]\n" },
	{ NAMED "[disk a]\nfile = /a\naio = native\ncache = writeback\n",
	  "t.ini:5 conflict: [disk a] aio: native needs a cache mode that bypasses the page cache [use cache = none or "
	  "directsync, or aio = threads]\n" },
	{ NAMED "[net m]\ntype = bridge\n",
	  "t.ini:3 missing-key: [net m] bridge: is required for type = bridge [name the host's bridge; `ip link show type bridge` "
	  "lists them]\n" },
	{ NAMED "[net m]\ntype = tap\nbridge = br0\n",
	  "t.ini:5 conflict: [net m] bridge: has an effect for type = bridge only [add 'type = bridge']\n" },
	{ NAMED "[net m]\nifname = tap0\nvhost = on\nqueues = 2\n",
	  "t.ini:4 conflict: [net m] ifname: has no effect for type = user [add 'type = tap']\n"
	  "t.ini:5 conflict: [net m] vhost: cannot be on for type = user [add 'type = tap']\n"
	  "t.ini:6 conflict: [net m] queues: type = user has one queue pair [add 'type = tap']\n" },
	{ NAMED "[net m]\nvhost = maybe\n",
	  "t.ini:4 bad-value: [net m] vhost: 'maybe' is not one of auto, on or off [expected auto, on or off]\n" },
	{ NAMED "[net a]\ntype = tap\nifname = t0\nmac = 52:54:00:00:00:aa\n"
		"[net b]\ntype = tap\nifname = t0\nmac = 52:54:00:00:00:AA\n",
	  "t.ini:9 conflict: [net b] ifname: 't0' is also that of [net a] []\n"
	  "t.ini:10 conflict: [net b] mac: '52:54:00:00:00:AA' is also that of [net a] []\n" },

	/* all at once, and nothing follows from what was refused */
	{ "[vm]\nname = -\nname = b\ncolour = red\n[place]\ngpus = x\ngpu-index = 0\n[net m]\ntype = bond\nifname = b\n",
	  "t.ini:2 bad-value: [vm] name: '-' is not a name [expected " NAME_FORM "48 characters]\n"
	  "t.ini:3 duplicate-key: [vm] name: is set in line 2 already [remove one of the two]\n"
	  "t.ini:4 unknown-key: [vm] unknown key 'colour' []\n"
	  "t.ini:6 bad-value: [place] gpus: 'x' is not a number [expected a number from 0 to 256]\n"
	  "t.ini:9 bad-value: [net m] type: 'bond' is not one of user, tap or bridge [expected user, tap or bridge]\n" },
};

/* clang-format on */
Test(config, wrong_definitions)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		expect(bad[i].text, strlen(bad[i].text), NULL, bad[i].problems);
}

Test(config, a_nul_byte_hides_nothing)
{
	static const char text[] = NAMED "accel = kvm\0\n[nonsense]\n";

	expect(text, sizeof(text) - 1, NULL,
	       "t.ini:3 bad-byte: byte 0x00 in column 12 [a definition is plain text in UTF-8]\n"
	       "t.ini:4 unknown-section: unknown section 'nonsense' []\n");
}

Test(config, a_binary_file_is_given_up)
{
	char text[2000];
	struct vm_config vm;
	struct problems ps = {0};

	memset(text, 0, sizeof(text));
	for (size_t i = 1; i < sizeof(text); i += 2)
		text[i] = '\n';
	cr_assert(config_parse(FILE_NAME, text, sizeof(text), NULL, &vm, &ps) == -EINVAL);
	cr_expect(ps.n == 101);
	cr_expect_str_eq(ps.v[100].code, "too-many-problems");
	problems_clear(&ps);
	config_clear(&vm);
}

Test(config, too_many_sections)
{
	char *text = NULL, *problems;
	struct vm_config vm;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	fputs(NAMED, f);
	for (int i = 0; i < 300; i++)
		fprintf(f, "[net n%d]\n", i);
	fclose(f);
	parse_sets(text, len, NULL, &vm, &problems);
	cr_expect_str_eq(problems, "t.ini:258 too-many-sections: more than 256 sections []\n");
	config_clear(&vm);
	free(problems);
	free(text);
}

/* --- right definitions ------------------------------------------------------------------------------- */

Test(config, every_default)
{
	struct vm_config vm = good("[vm]\nname = a\n[device d]\npci = 1:0.0\n[disk k]\nfile = /k\n[net n]\n");
	const struct device_config *d = &vm.devices[0];
	const struct disk_config *k = &vm.disks[0];
	const struct net_config *n = &vm.nets[0];

	cr_expect_str_eq(vm.path, FILE_NAME);
	cr_expect_str_eq(vm.name, "a");
	cr_expect(!vm.uuid && !vm.firmware && !vm.machine && !vm.kernel && !vm.initrd && !vm.append);
	cr_expect(vm.accel == ACCEL_AUTO && !vm.place_present);
	cr_expect(vm.gpus == 0 && vm.gpu_index == CONF_AUTO && vm.socket == CONF_AUTO);
	cr_expect(vm.nics == CONF_PER_GPU && vm.nvme == CONF_PER_GPU);
	cr_expect(vm.vcpus == CONF_AUTO && !vm.cpu_model && vm.threads == CONF_AUTO);
	cr_expect(vm.pin == PIN_AUTO && !vm.pin_cpus && vm.n_pin_cpus == 0);
	cr_expect(vm.cpu_reserve == CONF_AUTO && !vm.emulator_set && cpuset_empty(&vm.emulator));
	cr_expect(vm.memory_bytes == 0 && vm.hugepage_bytes == CONF_AUTO && vm.prealloc == PREALLOC_AUTO);
	cr_expect(vm.mem_reserve_bytes == CONF_AUTO);
	cr_expect(vm.pcie == PCIE_MIRROR && vm.mmio64_bytes == 0);
	cr_expect(vm.serial == SERIAL_SOCKET && vm.stop_timeout_ms == 90000 && vm.ready_timeout_ms == 0 && vm.busy_timeout_ms == 60000);
	cr_expect(vm.on_reboot == REBOOT_RESET && vm.on_launcher_death == DEATH_KEEP && vm.sandbox);
	cr_expect(!vm.qemu_binary && !vm.qemu_args && vm.qemu_env.n == 0);
	cr_expect(vm.pmu && !vm.invtsc && !vm.cpu_pm && !vm.mem_lock);
	cr_expect(vm.guest_agent && vm.guest_rng && vm.guest_panic && !vm.guest_tpm && vm.vsock == 0 && vm.check_disk == CHECK_AUTO);
	cr_expect(!vm.cloud_init && !vm.user_data && !vm.meta_data && !vm.network_config);

	cr_assert(vm.n_devices == 1 && vm.n_disks == 1 && vm.n_nets == 1);
	cr_expect_str_eq(d->name, "d");
	cr_expect(d->pci_set && d->pci.bus == 1 && !d->force && d->rombar && !d->romfile);
	cr_expect(d->guest_node == CONF_AUTO && d->gpudirect_clique == CONF_AUTO && !d->x_no_mmap);
	cr_expect_str_eq(k->name, "k");
	cr_expect_str_eq(k->file, "/k");
	cr_expect(k->format == DISK_AUTO && k->queues == CONF_AUTO && k->iothread && k->cache == CACHE_AUTO);
	cr_expect(k->aio == AIO_AUTO && !k->readonly && k->bootindex == CONF_AUTO);
	cr_expect(k->bus == BUS_BLK && !k->discard && !k->serial);
	cr_expect_str_eq(n->name, "n");
	cr_expect(n->type == NET_USER && !n->ifname && n->queues == CONF_AUTO && n->vhost == VHOST_AUTO && !n->mac);
	cr_expect(!n->bridge && !d->iommufd);
	config_clear(&vm);
}

Test(config, values_of_unnamed_sections)
{
	struct vm_config vm =
	    good("[vm]\nname=half-0.x_y\nuuid=6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11\nfirmware=ovmf\n"
		 "accel=tcg\nmachine=pc-q35-7.2\nkernel=/boot/k\ninitrd=/boot/i\nappend=a=b ; c # d\n"
		 "[place]\ngpus=4\ngpu-index=0\nsocket=1\nnics=none\nnvme=2\n"
		 "[cpu]\nvcpus=4\nmodel=host,-x\nthreads=1\npin=7,5-6,0\nreserve=0\nemulator=1-2\n"
		 "pmu=off\ninvtsc=on\ncpu-pm=on\n"
		 "[memory]\nsize=1.5T\nhugepages=2M\nprealloc=off\nreserve=0\nmem-lock=on\n"
		 "[guest]\nagent=off\nrng=off\npanic=off\ntpm=on\nvsock=2147483647\ncheck-disk=on\n"
		 "[cloud-init]\nuser-data=/u, v\nmeta-data=/m\nnetwork-config=/n\n"
		 "[pcie]\ntopology=flat\nmmio64=4 TiB\n"
		 "[console]\nserial=stdio\n"
		 "[lifecycle]\nstop-timeout=0\nready-timeout=1500ms\nbusy-timeout=0\non-reboot=stop\non-launcher-death=stop\n"
		 "[security]\nsandbox=no\n"
		 "[qemu]\nbinary=/q\nargs= -name 'x ; y' # z\nenv=A=1 B='x ; y' C=\n");

	cr_expect_str_eq(vm.name, "half-0.x_y");
	cr_expect_str_eq(vm.uuid, "6b0ed1f6-45b5-4f26-9a3d-0a5b7d6e2c11");
	cr_expect_str_eq(vm.firmware, "ovmf");
	cr_expect_str_eq(vm.machine, "pc-q35-7.2");
	cr_expect_str_eq(vm.kernel, "/boot/k");
	cr_expect_str_eq(vm.initrd, "/boot/i");
	cr_expect_str_eq(vm.append, "a=b ; c # d");
	cr_expect(vm.accel == ACCEL_TCG && vm.place_present);
	cr_expect(vm.gpus == 4 && vm.gpu_index == 0 && vm.socket == 1 && vm.nics == 0 && vm.nvme == 2);
	cr_expect_str_eq(vm.cpu_model, "host,-x");
	cr_expect(vm.vcpus == 4 && vm.threads == 1 && vm.pin == PIN_LIST && vm.cpu_reserve == 0 && vm.emulator_set);
	cr_assert(vm.n_pin_cpus == 4);
	cr_expect(vm.pin_cpus[0] == 7 && vm.pin_cpus[1] == 5 && vm.pin_cpus[2] == 6 && vm.pin_cpus[3] == 0);
	cr_expect(cpuset_count(&vm.emulator) == 2 && cpuset_has(&vm.emulator, 1) && cpuset_has(&vm.emulator, 2));
	cr_expect(vm.memory_bytes == UINT64_C(3) << 39 && vm.hugepage_bytes == 2 << 20 && vm.prealloc == PREALLOC_OFF);
	cr_expect(vm.mem_reserve_bytes == 0 && vm.pcie == PCIE_FLAT && vm.mmio64_bytes == UINT64_C(4) << 40);
	cr_expect(vm.serial == SERIAL_STDIO && vm.stop_timeout_ms == 0 && vm.ready_timeout_ms == 1500 && vm.busy_timeout_ms == 0);
	cr_expect(vm.on_reboot == REBOOT_STOP && vm.on_launcher_death == DEATH_STOP && !vm.sandbox);
	cr_expect(!vm.pmu && vm.invtsc && vm.cpu_pm && vm.mem_lock);
	cr_expect(!vm.guest_agent && !vm.guest_rng && !vm.guest_panic && vm.guest_tpm && vm.vsock == INT32_MAX && vm.check_disk == CHECK_ON);
	cr_expect(vm.cloud_init);
	cr_expect_str_eq(vm.user_data, "/u, v");
	cr_expect_str_eq(vm.meta_data, "/m");
	cr_expect_str_eq(vm.network_config, "/n");
	cr_expect_str_eq(vm.qemu_binary, "/q");
	cr_expect_str_eq(vm.qemu_args, "-name 'x ; y' # z");
	cr_assert(vm.qemu_env.n == 3);
	cr_expect_str_eq(vm.qemu_env.v[1], "B=x ; y");
	cr_expect_str_eq(vm.qemu_env.v[2], "C=");
	config_clear(&vm);
}

Test(config, values_of_named_sections)
{
	struct vm_config vm =
	    good("[vm]\nname=a\n"
		 "[device g]\npci=12345:17:1f.7\nforce=on\nrombar=off\nromfile=none\nguest-node=1\n"
		 "gpudirect-clique=15\nx-no-mmap=on\niommufd=on\n"
		 "[device h]\npci=18:00.0\nromfile=/r\ngpudirect-clique=none\n"
		 "[disk os]\nfile=/dev/vg/os\nformat=raw\nqueues=8\niothread=off\ncache=directsync\naio=native\n"
		 "readonly=on\nbootindex=3\nbus=scsi\ndiscard=on\nserial=a,b=c\n"
		 "[net b]\ntype=bridge\nbridge=br0\nifname=auto\nvhost=on\n"
		 "[net m]\ntype=tap\nifname=tap-m\nqueues=4\nvhost=off\nmac=52:54:00:12:34:56\n");
	const struct device_config *g = &vm.devices[0];

	cr_assert(vm.n_devices == 2 && vm.n_disks == 1 && vm.n_nets == 2);
	cr_expect(g->iommufd && !vm.devices[1].iommufd);
	cr_expect(vm.disks[0].bus == BUS_SCSI && vm.disks[0].discard);
	cr_expect_str_eq(vm.disks[0].serial, "a,b=c");
	cr_expect(vm.nets[0].type == NET_BRIDGE && !vm.nets[0].ifname && vm.nets[0].vhost == VHOST_ON);
	cr_expect_str_eq(vm.nets[0].bridge, "br0");
	cr_expect(g->pci.domain == 0x12345 && g->pci.bus == 0x17 && g->pci.dev == 0x1f && g->pci.fn == 7);
	cr_expect(g->force && !g->rombar && g->guest_node == 1 && g->gpudirect_clique == 15 && g->x_no_mmap);
	cr_expect_str_eq(g->romfile, "none");
	cr_expect_str_eq(vm.devices[1].romfile, "/r");
	cr_expect(vm.devices[1].gpudirect_clique == CONF_AUTO);
	cr_expect(vm.disks[0].format == DISK_RAW && vm.disks[0].queues == 8 && !vm.disks[0].iothread);
	cr_expect(vm.disks[0].cache == CACHE_DIRECTSYNC && vm.disks[0].aio == AIO_NATIVE);
	cr_expect(vm.disks[0].readonly && vm.disks[0].bootindex == 3);
	cr_expect(vm.nets[1].type == NET_TAP && vm.nets[1].queues == 4 && vm.nets[1].vhost == VHOST_OFF);
	cr_expect_str_eq(vm.nets[1].ifname, "tap-m");
	cr_expect_str_eq(vm.nets[1].mac, "52:54:00:12:34:56");
	cr_expect(!vm.place_present);
	config_clear(&vm);
}

Test(config, forms_of_a_line)
{
	struct vm_config vm =
	    good("\xef\xbb\xbf# BOM and CRLF\r\n\r\n  ; indented comment\r\n[ vm ]\t\r\nname\t=  a \t\r\n"
		 "[disk   os]\r\nfile=/x=y;z#w");

	cr_expect_str_eq(vm.name, "a");
	cr_expect_str_eq(vm.disks[0].name, "os");
	cr_expect_str_eq(vm.disks[0].file, "/x=y;z#w");
	cr_expect(config_line(&vm, "vm", "name") == 5);
	cr_expect(config_line(&vm, "disk os", "") == 6);
	cr_expect(config_line(&vm, "disk os", "file") == 7);
	cr_expect(config_line(&vm, "cpu", "vcpus") == 0);
	config_clear(&vm);
}

/* inih, by default, cuts at 200 bytes and makes keys of the rest; its section names end at 49. */
Test(config, long_lines)
{
	char *text, *value = xcalloc(70000, 1);
	struct vm_config vm;

	memset(value, 'x', 65536 - strlen("append="));
	text = xasprintf("[vm]\nname=a\nkernel=/k\nappend=%s\n[disk a2345678901234567890123456789012]\nfile=/%s\n",
			 value, "v/v=[v]\\");
	vm = good(text);
	cr_expect(strlen(vm.append) == 65529);
	cr_expect_str_eq(vm.disks[0].name, "a2345678901234567890123456789012");
	config_clear(&vm);
	free(text);

	memset(value, 'x', 65536);
	text = xasprintf("[vm]\nname=a\nkernel=/k\nappend=%s\n[disk x]\nfile=/f\nfile=/g", value);
	expect(text, strlen(text), NULL,
	       "t.ini:4 line-too-long: the line has 65543 bytes, at most 65536 are read []\n"
	       "t.ini:7 duplicate-key: [disk x] file: is set in line 6 already [remove one of the two]\n");
	free(text);

	/* Long values are shortened in messages, not in the middle of a character. */
	memset(value, 0, 70000);
	memset(value, 'x', 59);
	strcat(value, "\xc3\xa4\xc3\xa4");
	text = xasprintf("[vm]\nname=a\nkernel=%s\n", value);
	value[59] = '\0';
	{
		AUTO_FREE char *want =
		    xasprintf("t.ini:3 bad-value: [vm] kernel: '%s...' (63 bytes) is not an absolute path "
			      "[expected an absolute path]\n",
			      value);

		expect(text, strlen(text), NULL, want);
	}
	free(text);
	free(value);
}

/* inih doubles its buffer from 200 bytes on, and asks again for what did not fit. */
Test(config, lines_at_the_edges_of_a_buffer)
{
	for (size_t edge = 200; edge < 65536; edge *= 2) {
		for (size_t len = edge - 4; len <= edge + 4; len++) {
			size_t n = len - strlen("append=");
			AUTO_FREE char *value = xcalloc(n + 1, 1), *text = NULL;
			struct vm_config vm;

			memset(value, 'x', n);
			memcpy(value + n - 4, "y ;z", 4);
			text = xasprintf("[vm]\nname=a\nappend=%s\nkernel=/k", value);
			vm = good(text);
			cr_expect_str_eq(vm.append, value);
			cr_expect(config_line(&vm, "vm", "kernel") == 4);
			config_clear(&vm);
		}
	}
}

/* What other readers take for comments, continuations or separators is part of free text. */
Test(config, free_text_survives_whole)
{
	struct vm_config vm = good("[vm]\nname=a\nkernel=/k\nappend = ; a : b = [c] ;d\t;e # f\n"
				   "[qemu]\nargs = # -name x ;y\nenv = A='; b' 'B=# ;' C=\\;\n");

	cr_expect_str_eq(vm.append, "; a : b = [c] ;d\t;e # f");
	cr_expect_str_eq(vm.qemu_args, "# -name x ;y");
	cr_assert(vm.qemu_env.n == 3);
	cr_expect_str_eq(vm.qemu_env.v[0], "A=; b");
	cr_expect_str_eq(vm.qemu_env.v[1], "B=# ;");
	cr_expect_str_eq(vm.qemu_env.v[2], "C=;");
	config_clear(&vm);
}

/* --- the table ---------------------------------------------------------------------------------- */

/* A definition in which the example value of @k is right. */
static char *definition_with(const struct config_key *k, const char *value)
{
	static const struct {
		const char *section, *key, *others;
	} needs[] = {
	    {"vm", "initrd", "kernel = /k\n"},
	    {"vm", "append", "kernel = /k\n"},
	    {"place", "gpu-index", "gpus = 1\n"},
	    {"place", "nics", "gpus = 1\n"},
	    {"place", "nvme", "gpus = 1\n"},
	    {"net", "ifname", "type = tap\n"},
	    {"net", "queues", "type = tap\nifname = t\n"},
	    {"net", "vhost", "type = tap\nifname = t\n"},
	    {"net", "type", "ifname = t\n"},
	    {"net", "bridge", "type = bridge\n"},
	    {"disk", "aio", "file = /f\ncache = none\n"},
	};
	const char *others = !strcmp(k->section, "device") && !k->required ? "pci = 1:0.0\n"
			     : !strcmp(k->section, "disk") && !k->required ? "file = /f\n"
									   : "";
	bool named = config_section_is_named(k->section), vm = !strcmp(k->section, "vm");

	for (size_t i = 0; i < ARRAY_SIZE(needs); i++)
		if (!strcmp(needs[i].section, k->section) && !strcmp(needs[i].key, k->key))
			others = needs[i].others;
	return xasprintf("%s[%s%s]\n%s%s%s = %s\n", vm ? "" : NAMED, k->section, named ? " x" : "",
			 vm && strcmp(k->key, "name") ? "name = a\n" : "", others, k->key, value);
}

Test(config_table, every_key_can_be_set_to_its_example_and_default)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		AUTO_FREE char *text = definition_with(k, k->example);
		AUTO_FREE char *full = xasprintf("%s%s", k->section, config_section_is_named(k->section) ? " x" : "");
		struct vm_config vm = good(text);

		cr_expect(config_line(&vm, full, k->key) != 0);
		config_clear(&vm);
		if (*k->fallback && strcmp(k->key, "type") && strcmp(k->key, "gpus")) {
			AUTO_FREE char *same = definition_with(k, k->fallback);

			vm = good(same);
			config_clear(&vm);
		}
	}
}

/* The example file with every "#key = value" and "#[section NAME]" made live. */
static char *uncommented_example(void)
{
	AUTO_FREE char *example = config_example();
	char *text = NULL, *rest = example, *line;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	while ((line = strsep(&rest, "\n"))) {
		char *name = strncmp(line, "#[", 2) ? NULL : strstr(line, " NAME]");

		if (!strncmp(line, "#rombar", 7)) /* not together with a romfile */
			continue;
		if (name)
			fprintf(f, "%.*s x]\n", (int)(name - line - 1), line + 1);
		else if (!strncmp(line, "#cache", 6)) /* for aio = native */
			fputs("cache = none\n", f);
		else if (!strcmp(line, "#bootindex = 0")) /* that is the kernel's */
			fputs("bootindex = 1\n", f);
		else if (!strcmp(line, "#type = tap")) /* for bridge = br0 */
			fputs("type = bridge\n", f);
		else
			fprintf(f, "%s\n", *line == '#' && line[1] != ' ' ? line + 1 : line);
	}
	fclose(f);
	return text;
}

Test(config_table, all_examples_together_are_a_definition)
{
	AUTO_FREE char *text = uncommented_example();
	struct vm_config vm = good(text);

	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		AUTO_FREE char *section =
			xasprintf("%s%s", k->section, config_section_is_named(k->section) ? " x" : "");

		cr_expect(config_line(&vm, section, k->key) > 0 || !strcmp(k->key, "rombar"), "[%s] %s", section, k->key);
	}
	config_clear(&vm);
}

Test(config_table, is_well_formed)
{
	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];

		cr_expect(k->doc && *k->doc && k->example && *k->example && k->fallback, "[%s] %s", k->section, k->key);
		cr_expect(!(k->required && *k->fallback), "[%s] %s: required and with a default", k->section, k->key);
		cr_expect(k->type != CONF_ENUM || k->words, "[%s] %s: no words", k->section, k->key);
		cr_expect((k->type == CONF_CUSTOM) == !!k->parse, "[%s] %s: parse", k->section, k->key);
		/* An example that is the default shows nothing. */
		cr_expect(strcmp(k->example, k->fallback), "[%s] %s: example", k->section, k->key);
		for (size_t j = 0; j < i; j++)
			cr_expect(strcmp(k->section, config_keys[j].section) || strcmp(k->key, config_keys[j].key));
	}
}

static char *slurp(const char *path)
{
	char *text = NULL;

	cr_assert(read_text_file(path, 1 << 20, &text) == 0, "%s: run the tests in the top folder", path);
	return text;
}

Test(config_table, example_file_is_up_to_date)
{
	AUTO_FREE char *file = slurp("conf/gpuvm.ini.example");
	AUTO_FREE char *made = config_example();

	if (*made)
		made[strlen(made) - 1] = '\0'; /* slurp() drops the last newline */
	cr_expect(strcmp(file, made) == 0, "run tools/mkexample >conf/gpuvm.ini.example");
}

Test(config_table, every_key_is_in_the_man_page)
{
	AUTO_FREE char *man = slurp("docs/man/gpuvm.ini.5.scd");

	for (size_t i = 0; i < config_n_keys; i++) {
		const struct config_key *k = &config_keys[i];
		bool named = config_section_is_named(k->section);
		AUTO_FREE char *head = xasprintf("\n# [%s%s]\n", k->section, named ? " NAME" : "");
		AUTO_FREE char *entry =
		    k->required ? xasprintf("\n*%s* (required)\n", k->key)
				: xasprintf("\n*%s* (default: %s)\n", k->key, *k->fallback ? k->fallback : "none");
		const char *section = strstr(man, head), *next, *at;

		cr_assert(section, "no section %s in the man page", head);
		next = strstr(section + 1, "\n# ");
		at = strstr(section, entry);
		cr_expect(at && (!next || at < next), "[%s]: no entry %s in the man page", k->section, entry);
	}
}

/* --- --set --------------------------------------------------------------------------------------- */

/* clang-format off */
static const struct {
	const char *set, *problems;
} bad_sets[] = {
	{ "gpus=4", "--set:0 bad-set: cannot read 'gpus=4' [expected SECTION.KEY=VALUE, as in place.gpus=4 or "
		    "disk.os.file=/path]\n" },
	{ "place.gpus", "--set:0 bad-set: cannot read 'place.gpus' [expected SECTION.KEY=VALUE, as in place.gpus=4 or "
			"disk.os.file=/path]\n" },
	{ ".gpus=4", "--set:0 bad-set: cannot read '.gpus=4' [expected SECTION.KEY=VALUE, as in place.gpus=4 or "
		     "disk.os.file=/path]\n" },
	{ "place.=4", "--set:0 bad-set: cannot read 'place.=4' [expected SECTION.KEY=VALUE, as in place.gpus=4 or "
		      "disk.os.file=/path]\n" },
	{ "place.gpu=4", "--set:0 unknown-key: [place] unknown key 'gpu' [did you mean 'gpus'?]\n" },
	{ "palce.gpus=4", "--set:0 unknown-section: unknown section 'palce' [did you mean [place]?]\n" },
	{ "place.gpus=many", "--set:0 bad-value: [place] gpus: 'many' is not a number [expected a number from 0 to 256]\n" },
	{ "place.gpus=", "--set:0 bad-value: [place] gpus: has no value [leave the line out for the default]\n" },
	{ "place.gpu-index=1",
	  "--set:0 conflict: [place] gpu-index: is set, but the VM takes no GPUs [add 'gpus = N' to [place]]\n" },
	{ "disk.file=/x", "--set:0 bad-section: [disk] needs a name [write [disk NAME]]\n" },
	{ "disk.data.readonly=on", "--set:0 missing-key: [disk data] file: is required [for example 'file = "
				   "/var/lib/gpuvm/disks/half0.qcow2']\n" },
	{ "vm.machine=a\nb", "--set:0 bad-byte: byte 0x0a in column 13 [a definition is plain text in UTF-8]\n" },
};

/* clang-format on */
Test(config_set, wrong_ones)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_sets); i++) {
		struct strv sets = {0};

		strv_push(&sets, bad_sets[i].set);
		expect(NAMED, strlen(NAMED), &sets, bad_sets[i].problems);
		strv_clear(&sets);
	}
}

Test(config_set, replaces_what_the_file_says)
{
	static const char text[] = NAMED "[cpu]\npin = 0-3\n[qemu]\nenv = A=1\n[disk os]\nfile = /x\n";
	struct strv sets = {0};
	struct vm_config vm;
	char *problems;

	strv_push(&sets, "cpu.pin=8,9");
	strv_push(&sets, "qemu.env=B=2 C=3");
	strv_push(&sets, "disk.os.file = /y=z ");
	strv_push(&sets, "disk.data.v2.file=/d");
	strv_push(&sets, "place.gpus=1");
	strv_push(&sets, "place.gpus=2");
	strv_push(&sets, "vm.name=b");
	parse_sets(text, strlen(text), &sets, &vm, &problems);
	cr_assert_str_eq(problems, "");
	cr_expect_str_eq(vm.name, "b");
	cr_expect(vm.place_present && vm.gpus == 2);
	cr_expect(vm.n_pin_cpus == 2 && vm.pin_cpus[1] == 9);
	cr_assert(vm.qemu_env.n == 2);
	cr_expect_str_eq(vm.qemu_env.v[0], "B=2");
	cr_assert(vm.n_disks == 2);
	cr_expect_str_eq(vm.disks[0].file, "/y=z");
	cr_expect_str_eq(vm.disks[1].name, "data.v2");
	cr_expect(config_line(&vm, "cpu", "pin") == 0);
	cr_expect(config_line(&vm, "disk os", "") == 7);
	config_clear(&vm);
	strv_clear(&sets);
	free(problems);
}

/* --- files --------------------------------------------------------------------------------------- */

static void load(const char *path, struct vm_config *vm, const char *want)
{
	struct problems ps = {0};
	int r = config_load(path, NULL, vm, &ps);
	AUTO_FREE char *text = describe(&ps);

	cr_expect_str_eq(text, want);
	cr_expect(r == (*want ? -EINVAL : 0));
	problems_clear(&ps);
}

Test(config_load, the_definitions_that_come_with_it)
{
	static const struct {
		const char *path, *name;
		int gpus, gpu_index;
	} files[] = {
	    {"conf/half0.ini", "half0", 4, 0},       {"conf/half1.ini", "half1", 4, 4},
	    {"conf/full.ini", "full", 8, CONF_AUTO}, {"conf/quarter0.ini", "quarter0", 2, 0},
	    {"conf/demo.ini", "demo", 0, CONF_AUTO}, {"conf/gpuvm.ini.example", "half0", 0, CONF_AUTO},
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct vm_config vm;

		load(files[i].path, &vm, "");
		cr_expect_str_eq(vm.name, files[i].name);
		cr_expect(vm.gpus == files[i].gpus && vm.gpu_index == files[i].gpu_index, "%s", files[i].path);
		config_clear(&vm);
	}
}

Test(config_load, takes_the_name_of_the_file)
{
	char dir[] = "/tmp/gpuvm-config-XXXXXX";
	struct vm_config vm;

	cr_assert(mkdtemp(dir) != NULL);
	{
		AUTO_FREE char *path = xasprintf("%s/gpu-node.7.ini", dir);
		AUTO_FREE char *odd = xasprintf("%s/a b.ini", dir);
		AUTO_FREE char *missing =
		    xasprintf("%s:1 missing-key: [vm] name: is required [for example 'name = half0']\n", odd);

		cr_assert(write_file_atomic(path, "[place]\n", 8, 0600) == 0);
		load(path, &vm, "");
		cr_expect_str_eq(vm.name, "gpu-node.7");
		config_clear(&vm);
		cr_assert(write_file_atomic(odd, "[vm]\n", 5, 0600) == 0);
		load(odd, &vm, missing);
		unlink(path);
		unlink(odd);
	}
	rmdir(dir);
}

Test(config_load, says_why_a_file_cannot_be_read)
{
	struct vm_config vm;

	load("/nonexistent.ini", &vm,
	     "/nonexistent.ini:0 definition-unreadable: cannot read the definition: No such file or directory []\n");
	load("/tmp", &vm, "/tmp:0 definition-unreadable: cannot read the definition: Is a directory []\n");
	load("/dev/zero", &vm, "/dev/zero:0 definition-unreadable: cannot read the definition: File too large []\n");
}
