/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The shell's completion: what it has written down is what the programs say, and what it offers. */
#include "programs.h"

#define LOAD ". ./conf/completions/gpuvm.bash; "

static void write_script(const struct place *p, const char *name, const char *text)
{
	AUTO_FREE char *path = xasprintf("%s/%s", p->root, name);

	cr_assert(write_file_atomic(path, text, strlen(text), 0600) == 0);
}

/* Of what `--help` prints: without what it says of other verbs; "--svg=" for "--svg FILE" and "--format=FORM". */
static const char compare[] =
	"set -u; bad=0\n"
	"differ() { diff \"$2\" \"$3\" && return; echo \"$1: < --help, > conf/completions/gpuvm.bash\"; bad=1; }\n"
	"of_help() { sed 's/`[^`]*`//g; s/([^)]*)//g' | grep -oE -- '--[a-z][a-z0-9-]*([ =][A-Z]+)?' | sed 's/[ =].*/=/'; echo --help; }\n"
	"options() { # WHAT PROGRAM [WORD...]\n"
	"	what=$1; shift\n"
	"	\"$@\" --help | of_help >$R/help; bash -c '" LOAD "_gpuvm_options \"$1\"' - \"$what\" | tr ' ' '\\n' >$R/ours\n"
	"	for f in help ours; do sed s/=// $R/$f | sort -u >$R/$f.names; grep = $R/$f | sort -u >$R/$f.values; done\n"
	"	differ \"$what\" $R/help.names $R/ours.names; differ \"$what, which take a value\" $R/help.values $R/ours.values\n"
	"}\n"
	"words() { awk '/^  [a-z]/ { print $1 }'; }\n"
	"list() { bash -c '" LOAD "eval \"printf \\\"%s\\\\n\\\" \\\"\\${$1[@]}\\\"\"' - $1; }\n"
	"$G --help | words >$R/help; list _gpuvm_verbs >$R/ours; differ verbs $R/help $R/ours\n"
	"$G image --help | words | sort >$R/help; list _gpuvm_image_words | sort >$R/ours; differ image $R/help $R/ours\n"
	"for v in $($G --help | words); do options $v $G $v; done\n"
	"for w in $($G image --help | words); do options \"image $w\" $G image $w; done\n"
	"options gpuvm-launch $L\n"
	"awk '/^#?\\[/ { named = /^#/; gsub(/[][]/, \"\"); s = $0 } /^#?[a-z][a-z0-9-]* = / && !named { sub(/^#/, \"\"); print s \".\" $1 }' "
	"conf/gpuvm.ini.example >$R/help\n"
	"list _gpuvm_keys >$R/ours; differ keys $R/help $R/ours\n"
	"rm $R/help* $R/ours*; exit $bad\n";

Test(completion, is_what_the_programs_say, .timeout = 60)
{
	struct place p = place_new();

	write_script(&p, "compare.ini", compare);
	EXPECT_SH(&p, 0, "export L G; . $R/compare.ini");
	place_end(&p);
}

/* The words up to the cursor, as bash gives them; what is offered, sorted. */
static const char driver[] = LOAD "COMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
				  "_gpuvm_complete && printf '%s\\n' \"${COMPREPLY[@]}\" | sort | xargs\n";

static const struct {
	const char *words, *offer;
} offers[] = {
	{ "gpuvm pl", "plan" },
	{ "gpuvm re", "recover reset restart resume" },
	{ "gpuvm --", "--help --version" },
	{ "gpuvm topo --s", "--svg --sysroot" },
	{ "gpuvm log --json --f", "--follow" },
	{ "gpuvm stop ''", "down run.2 up" },
	{ "gpuvm stop --timeout ''", "" },
	{ "gpuvm stop --timeout 10s u", "up" },
	{ "gpuvm stop up ''", "" },
	{ "gpuvm qmp up ''", "" },
	{ "gpuvm list ''", "" },
	{ "gpuvm create ''", "" },
	{ "gpuvm create --image ''", "debian-12 ubuntu" },
	{ "gpuvm create --image u", "ubuntu" },
	{ "gpuvm create --net = br", "bridge=" },
	{ "gpuvm create --net =", "bridge= none tap= user" },
	{ "gpuvm image ''", "install list remove upgrade" },
	{ "gpuvm image install --", "--help --json --name --sha256" },
	{ "gpuvm image remove d", "debian-12" },
	{ "gpuvm image list ''", "" },
	/* a name, or a file, or a folder that may have one */
	{ "gpuvm diff up $R/dir/", "$R/dir/a.ini $R/dir/sub" },
	{ "gpuvm plan --set cpu.vcpus = 8 u", "up" },
	{ "gpuvm plan --set lifecycle.on-", "lifecycle.on-crash= lifecycle.on-launcher-death= lifecycle.on-reboot=" },
	{ "gpuvm plan --set = vm.n", "vm.name=" },
	{ "gpuvm plan --sysroot $R/dir/", "$R/dir/a.ini $R/dir/b.tar $R/dir/sub" },
	{ "gpuvm capture $R/dir/b", "$R/dir/b.tar" },
	{ "gpuvm-launch --f", "--fake-devices --force-insecure --format" },
	{ "gpuvm-launch --format ''", "json lines shell" },
	{ "gpuvm-launch --format = l", "lines" },
	{ "gpuvm-launch --qemu = $R/dir/b", "$R/dir/b.tar" },
	{ "gpuvm-launch -n $R/dir/a", "$R/dir/a.ini" },
	{ "gpuvm-launch $R/dir/a.ini ''", "" },
	{ "/usr/bin/gpuvm-launch -n --q", "--qemu --qemu-answers --quiet" },
};

static char *with_root(const char *text)
{
	const char *root = getenv("R");
	char *out = xstrdup("");

	for (const char *at; (at = strstr(text, "$R")); text = at + 2) {
		AUTO_FREE char *before = out;

		out = xasprintf("%s%.*s%s", before, (int)(at - text), text, root);
	}
	{
		AUTO_FREE char *before = out;

		return xasprintf("%s%s", before, text);
	}
}

Test(completion, offers, .timeout = 60)
{
	struct place p = place_new();

	write_script(&p, "driver.ini", driver);
	EXPECT_SH(&p, 0, "mkdir -p $R/etc $R/run/up $R/run/run.2 $R/run/not-a-vm $R/state/images $R/dir/sub; cd $R; "
			 "touch etc/down.ini etc/up.ini etc/up.user-data run/up/claim.json run/run.2/last.json state/images/ubuntu.json state/images/debian-12.json "
			 "state/images/ubuntu@0123.qcow2 dir/a.ini dir/b.tar");
	for (size_t i = 0; i < ARRAY_SIZE(offers); i++) {
		AUTO_FREE char *want = with_root(offers[i].offer), *cmd = NULL;

		cmd = xasprintf("export GPUVM_CONFDIR=$R/etc GPUVM_RUNDIR=$R/run GPUVM_STATEDIR=$R/state; bash $R/driver.ini %s", offers[i].words);
		EXPECT_SH(&p, 0, cmd);
		cr_expect_str_eq(p.out, want, "%s: '%s' is offered, expected '%s'", offers[i].words, p.out, want);
	}
	/* Where nothing is installed yet, nothing is said. */
	EXPECT_SH(&p, 0, "export GPUVM_CONFDIR=/nonexistent GPUVM_RUNDIR=/nonexistent GPUVM_STATEDIR=/nonexistent; bash $R/driver.ini gpuvm stop ''");
	cr_expect_str_eq(p.out, "");
	EXPECT_SH(&p, 0, "bash -c '" LOAD "complete -p gpuvm gpuvm-launch' && rm -r $R/etc $R/run $R/state $R/dir");
	place_end(&p);
}
