/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The image store with a real qemu-img: what is refused, what a crash, a full disk or a signal leaves, who uses what; and disks on images. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/stat.h>

#include "gpuvm/image.h"
#include "programs.h"

/* A store ($S), definitions ($C) and a folder to work in ($W), all below $R. */
static struct place store_new(void)
{
	struct place p = place_new();
	AUTO_FREE char *s = xasprintf("%s/state", p.root), *c = xasprintf("%s/conf", p.root), *w = xasprintf("%s/work", p.root);

	setenv("GPUVM_STATEDIR", s, 1);
	setenv("GPUVM_CONFDIR", c, 1);
	setenv("S", s, 1);
	setenv("C", c, 1);
	setenv("W", w, 1);
	EXPECT_SH(&p, 0, "mkdir $S $C $W; cd $W && qemu-img create -q -f qcow2 a.qcow2 16M && qemu-io -c 'write -P 7 0 128k' a.qcow2");
	return p;
}

static void store_end(struct place *p)
{
	EXPECT_SH(p, 0, "rm -rf $S $C $W");
	place_end(p);
}

/* All that is in the store but the lock. */
#define LS      "ls -A $S/images | grep -v '^.lock$'; "
#define EMPTY   "! ls -A $S/images 2>/dev/null | grep -v '^.lock$'"
#define INSTALL "$G image install "
#define FILE_OF(name) "$($G image list --json | jq -re '.[] | select(.name == \"" name "\") | .file')"

static char *statedir(const struct place *p)
{
	return xasprintf("%s/state", p->root);
}

/* --- what comes in --------------------------------------------------------------------------------------------------- */

Test(image, install_and_list, .timeout = 60)
{
	struct place p = store_new();

	EXPECT_SH(&p, 0, "$G image list --json | jq -e '. == []'");
	EXPECT_SH(&p, 0, "cd $W && " INSTALL "a.qcow2");
	EXPECT_SAYS(&p, "image 'a' is installed (qcow2, 16 MiB, SHA-256 ");
	EXPECT_SH(&p, 0, "cmp $W/a.qcow2 " FILE_OF("a"));
	EXPECT_SH(&p, 0, "$G image list --json | jq -e --arg sum $(sha256sum <$W/a.qcow2 | cut -c1-64) --arg src $W/a.qcow2 --arg dir $S/images"
			 " --argjson bytes $(stat -c %s $W/a.qcow2) --argjson now $(date +%s)"
			 " '.[0] | .schema == 1 and .name == \"a\" and .format == \"qcow2\" and .sha256 == $sum and .source == $src and .bytes == $bytes"
			 " and .virtual_bytes == 16777216 and .used_by == [] and .older == [] and .file == $dir + \"/a@\" + $sum[0:12] + \".qcow2\""
			 " and .installed > $now - 100 and .installed <= $now and .disk_bytes > 0'");
	EXPECT_SH(&p, 0, "[ $(stat -c %a " FILE_OF("a") ") = 444 ]");
	/* by another name, with the sum; and again */
	EXPECT_SH(&p, 0, INSTALL "--name b --sha256 $(sha256sum <$W/a.qcow2 | cut -c1-64 | tr a-f A-F) --json $W/a.qcow2 2>/dev/null >$W/out"
			 " && jq -e '.name == \"b\" and .changed' $W/out");
	EXPECT_SH(&p, 5, INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "there is an image 'a' already");
	EXPECT_SH(&p, 5, INSTALL "--json $W/a.qcow2 >$W/out || { r=$?; jq -e '.errors[0].code == \"image-exists\"' $W/out; exit $r; }");
	EXPECT_SH(&p, 0, "$G image list");
	EXPECT_SAYS(&p, "NAME");
	EXPECT_SAYS(&p, "\na ");
	EXPECT_SAYS(&p, "\nb ");
	EXPECT_SH(&p, 0, "$G image remove a && $G image list --json | jq -e 'length == 1 and .[0].name == \"b\"'");
	EXPECT_SH(&p, 0, "$G image remove b && " EMPTY);
	store_end(&p);
}

Test(image, holes_stay_holes, .timeout = 60)
{
	struct place p = store_new();

	/* Data at the beginning, across a buffer's end, and none at the end; not in the units that the copy has. */
	EXPECT_SH(&p, 0, "cd $W && truncate -s 67109376 r.raw && printf boot | dd of=r.raw conv=notrunc status=none"
			 " && dd if=/dev/urandom of=r.raw bs=1000 count=30 seek=1040 conv=notrunc status=none"
			 " && printf '\\125\\252' | dd of=r.raw bs=1 seek=510 conv=notrunc status=none && " INSTALL "r.raw");
	cr_expect(!strstr(p.out, "boot sector"), "%s", p.out);
	EXPECT_SH(&p, 0, "cmp $W/r.raw " FILE_OF("r") " && [ $(stat -c %s " FILE_OF("r") ") = 67109376 ]");
	EXPECT_SH(&p, 0, "[ $(( $(stat -c %b " FILE_OF("r") ") * 512 )) -lt 200000 ]");
	EXPECT_SH(&p, 0, "$G image list --json | jq -e '.[0] | .format == \"raw\" and .virtual_bytes == 67109376'");
	/* zeros that were written are holes, too */
	EXPECT_SH(&p, 0, "head -c 8M /dev/zero >$W/z.img; " INSTALL "$W/z.img");
	EXPECT_SAYS(&p, "has no boot sector");
	EXPECT_SH(&p, 0, "[ $(stat -c %b " FILE_OF("z") ") -lt 64 ] && cmp $W/z.img " FILE_OF("z"));
	store_end(&p);
}

Test(image, refusals, .timeout = 120)
{
	static const struct {
		const char *make, *install;
		int code;
		const char *says;
	} rows[] = {
		{ "true", "nope.qcow2", 1, "'nope.qcow2': No such file" },
		{ "true", "$W", 1, "is a folder" },
		{ "mkfifo f.img", "f.img", 1, "is a FIFO" },
		{ "true", "--name null /dev/null", 1, "is a device" },
		{ ": >e.img", "e.img", 1, "'e.img' is empty" },
		{ "printf '<html>%s</html>' \"$(seq 300)\" >h.img", "h.img", 1, "A text or web page" },
		{ "gzip -k a.qcow2", "a.qcow2.gz", 1, "gunzip -k a.qcow2.gz" },
		{ "xz -k a.qcow2", "a.qcow2.xz", 1, "xz -dk a.qcow2.xz" },
		{ "bzip2 -k a.qcow2", "a.qcow2.bz2", 1, "bzip2 -dk a.qcow2.bz2" },
		{ "printf '\\050\\265\\057\\375 and so on' >a.zst", "a.zst", 1, "zstd -d a.zst" },
		{ "tar -cf t.ova a.qcow2", "t.ova", 1, "tar -xf t.ova" },
		{ "qemu-img create -q -f vmdk 'v v.vmdk' 1M", "--name v 'v v.vmdk'", 1, "qemu-img convert -O qcow2 'v v.vmdk' 'v v.qcow2'" },
		/* A descriptor that names a file of the host: qemu-img would open it. */
		{ "printf '# Disk DescriptorFile\\nversion=1\\nCID=1\\nparentCID=ffffffff\\ncreateType=\"monolithicFlat\"\\nRW 8 FLAT \"%s\" 0\\n' /etc/hostname >d.img",
		  "d.img", 1, "is in the format vmdk" },
		{ "qemu-img create -q -f vdi v.vdi 1M", "v.vdi", 1, "qemu-img convert -O qcow2 v.vdi v.qcow2" },
		{ "qemu-img create -q -f vpc v.vhd 1M", "v.vhd", 1, "images are qcow2 or raw" },
		{ "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 o.qcow2", "o.qcow2", 1,
		  "only the difference to another file ('a.qcow2'); make one file of it: qemu-img convert -O qcow2 o.qcow2 o-whole.qcow2" },
		{ "qemu-img create -q -f qcow2 -o data_file=d.raw x.qcow2 1M", "x.qcow2", 1, "has its data in another file ('d.raw')" },
		/* Bytes 32 to 35 are the method of encryption (interop/qcow2.txt): 1 AES. */
		{ "cp a.qcow2 c.qcow2; printf '\\001' | dd of=c.qcow2 bs=1 seek=35 conv=notrunc status=none", "c.qcow2", 1, "is encrypted" },
		/* Byte 79 has the lowest incompatible features: bit 0 dirty, bit 1 corrupt. */
		{ "cp a.qcow2 dirty.qcow2; printf '\\001' | dd of=dirty.qcow2 bs=1 seek=79 conv=notrunc status=none", "dirty.qcow2", 1, "not closed cleanly" },
		{ "cp a.qcow2 k.qcow2; printf '\\002' | dd of=k.qcow2 bs=1 seek=79 conv=notrunc status=none", "k.qcow2", 1, "marked as corrupt" },
		/* A cluster in use whose count says it is not. */
		{ "cp a.qcow2 m.qcow2; printf '\\000\\000' | dd of=m.qcow2 bs=1 seek=131082 conv=notrunc status=none", "m.qcow2", 1,
		  "is damaged: qemu-img check finds" },
		{ "head -c 40 a.qcow2 >s.qcow2", "s.qcow2", 1, "'s.qcow2'" },
		{ "qemu-img create -q -f qcow2 n.qcow2 0", "n.qcow2", 1, "a disk of 0 bytes" },
		{ "true", "--sha256 $(seq -s '' 99 | cut -c1-64) a.qcow2", 1, "is not what was expected: its SHA-256 is" },
		{ "true", "--sha256 abc a.qcow2", 2, "64 hexadecimal digits" },
		{ "cp a.qcow2 'a b.qcow2'", "'a b.qcow2'", 1, "give one with --name" },
		{ "true", "--name ../a a.qcow2", 2, "is no name" },
		{ "true", "--name a@b a.qcow2", 2, "is no name" },
		{ "true", "--name .a a.qcow2", 2, "is no name" },
		{ "true", "--name '' a.qcow2", 2, "is no name" },
		{ "true", "--name 1234567890123456789012345678901234567890123456789 a.qcow2", 2, "is no name" },
		{ "true", "", 2, "missing: FILE" },
		{ "true", "a.qcow2 b", 2, "too many words" },
		{ "true", "--nonsense a.qcow2", 2, "nonsense" },
	};
	struct place p = store_new();

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *make = xasprintf("cd $W && { %s; }", rows[i].make), *cmd = xasprintf("cd $W && " INSTALL "%s", rows[i].install);

		EXPECT_SH(&p, 0, make);
		EXPECT_SH(&p, rows[i].code, cmd);
		cr_expect(strstr(p.out, rows[i].says), "row %zu: '%s' is not in:\n%s", i, rows[i].says, p.out);
		EXPECT_SH(&p, 0, EMPTY);
	}
	store_end(&p);
}

Test(image, verbs_and_their_help, .timeout = 60)
{
	struct place p = store_new();

	EXPECT_SH(&p, 0, "for v in '' list install upgrade remove; do $G image $v --help | grep -q '^usage: gpuvm image' || exit 1; done");
	EXPECT_SH(&p, 2, "$G image");
	EXPECT_SH(&p, 2, "$G image fetch");
	EXPECT_SAYS(&p, "there is no 'fetch'");
	EXPECT_SH(&p, 2, "$G image list x");
	EXPECT_SH(&p, 2, "$G image list --name x");
	EXPECT_SH(&p, 2, "$G image remove");
	EXPECT_SH(&p, 2, "$G image remove ../x");
	EXPECT_SH(&p, 1, "$G image remove debian");
	EXPECT_SAYS(&p, "there is no image 'debian'; none is installed");
	EXPECT_SH(&p, 1, INSTALL "--name debian-12 $W/a.qcow2; $G image upgrade --name debian-13 $W/a.qcow2");
	EXPECT_SAYS(&p, "did you mean 'debian-12'?");
	EXPECT_SH(&p, 0, LS);
	cr_expect(!strstr(p.out, "debian-13"), "%s", p.out);
	store_end(&p);
}

/* The disk of a VM that runs would be copied half old and half new. */
Test(image, a_file_that_somebody_writes, .timeout = 60)
{
	struct place p = store_new();

	/* qemu-io has it open until its input ends. */
	EXPECT_SH(&p, 0,
		  "cd $W && mkfifo in out && { qemu-io a.qcow2 <in >out & } && exec 3>in 4<out && echo 'length' >&3 && read -r _ <&4 && ! " INSTALL "a.qcow2 3>&-"
		  " && exec 3>&- && wait && " EMPTY);
	EXPECT_SAYS(&p, "Is another process using the image");
	EXPECT_SH(&p, 0, INSTALL "$W/a.qcow2");
	store_end(&p);
}

/* --- what goes wrong half-way ------------------------------------------------------------------------------------------ */

/* LeakSanitizer does not work below a tracer. */
#define INJECT(what) "ASAN_OPTIONS=detect_leaks=0 strace -qq -o /dev/null -e trace=all -e inject=" what " "

static bool can_trace(struct place *p)
{
	return sh(p, INJECT("getppid:retval=1") "true") == 0;
}

/* 3 MiB that compress to nothing else: three writes of a buffer each. */
#define BIG "seq 1000000 | head -c 3145728 >$W/big.img; "

static const struct {
	const char *call;
	int when;
} steps[] = { { "pwrite64", 1 }, { "pwrite64", 3 }, { "ftruncate", 1 }, { "fchmod", 1 }, { "rename", 1 },
	      { "rename", 2 },	 { "fsync", 1 },    { "fsync", 2 },	{ "fsync", 3 } };

static char *inject(size_t step, const char *what, const char *cmd)
{
	return xasprintf(INJECT("%s:%s:when=%d") "%s", steps[step].call, what, steps[step].when, cmd);
}

/* Each step fails, and nothing is left, in the first install and in an upgrade. */
Test(image, every_step_can_fail, .timeout = 120)
{
	struct place p = store_new();

	if (!can_trace(&p)) {
		store_end(&p);
		cr_skip("strace is missing, or may not trace here");
	}
	EXPECT_SH(&p, 0, BIG INSTALL "--name old $W/a.qcow2; " LS ":");
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		AUTO_FREE char *first = inject(i, "error=ENOSPC", INSTALL "$W/big.img"),
			       *upgrade = inject(i, "error=ENOSPC", "$G image upgrade --name old $W/big.img");

		EXPECT_SH(&p, 0, LS "find $S -type f ! -name .lock -exec sha256sum {} + | sort >$W/before");
		EXPECT_SH(&p, 1, first);
		EXPECT_SAYS(&p, "No space left on device");
		EXPECT_SH(&p, 0, "find $S -type f ! -name .lock -exec sha256sum {} + | sort | diff $W/before -");
		EXPECT_SH(&p, 1, upgrade);
		EXPECT_SAYS(&p, "No space left on device");
		EXPECT_SH(&p, 0, "find $S -type f ! -name .lock -exec sha256sum {} + | sort | diff $W/before -");
	}
	store_end(&p);
}

/* Killed at each step: the old or the new is there, whole; the next one removes what is left. */
Test(image, killed_at_every_step, .timeout = 120)
{
	struct place p = store_new();

	if (!can_trace(&p)) {
		store_end(&p);
		cr_skip("strace is missing, or may not trace here");
	}
	EXPECT_SH(&p, 0, BIG ":");
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		AUTO_FREE char *cmd = inject(i, "signal=SIGKILL", INSTALL "$W/big.img; [ $? = 137 ]"),
			       *upgrade = inject(i, "signal=SIGKILL", "$G image upgrade --name old $W/big.img; [ $? = 137 ]");

		EXPECT_SH(&p, 0, "rm -rf $S; " INSTALL "--name old $W/a.qcow2");
		EXPECT_SH(&p, 0, cmd);
		EXPECT_SH(&p, 0, "$G image list --json | jq -e '.[] | select(.name == \"old\") | .bytes < 3145728'");
		EXPECT_SH(&p, 0, "f=" FILE_OF("big") " && cmp $f $W/big.img || { ! $G image list | grep '^big ' && " INSTALL "$W/big.img; }");
		EXPECT_SH(&p, 0, "cmp " FILE_OF("big") " $W/big.img && $G image remove big");
		EXPECT_SH(&p, 0, upgrade);
		EXPECT_SH(&p, 0, "f=" FILE_OF("old") " && { cmp $f $W/big.img || cmp $f $W/a.qcow2; }");
		/* Whatever is left goes with what comes next. */
		EXPECT_SH(&p, 0, INSTALL "--name other $W/a.qcow2 && $G image remove other && [ $(ls -A $S/images | wc -l) = 3 ]");
		EXPECT_SH(&p, 0, "f=" FILE_OF("old") " && { cmp $f $W/big.img || cmp $f $W/a.qcow2; }");
	}
	store_end(&p);
}

Test(image, signals, .timeout = 60)
{
	static const char *const signals[] = { "SIGINT", "SIGTERM", "SIGHUP" };
	struct place p = store_new();

	if (!can_trace(&p)) {
		store_end(&p);
		cr_skip("strace is missing, or may not trace here");
	}
	EXPECT_SH(&p, 0, BIG ":");
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		AUTO_FREE char *cmd = xasprintf(INJECT("pwrite64:signal=%s:when=1") INSTALL "$W/big.img", signals[i]),
			       *last = xasprintf(INJECT("fchmod:signal=%s:when=1") INSTALL "$W/big.img", signals[i]);

		EXPECT_SH(&p, 1, cmd);
		EXPECT_SAYS(&p, "stopped by a signal");
		EXPECT_SH(&p, 0, EMPTY);
		EXPECT_SH(&p, 1, last);
		EXPECT_SAYS(&p, "stopped by a signal");
		EXPECT_SH(&p, 0, EMPTY);
	}
	/* nohup: one that is ignored stays so */
	EXPECT_SH(&p, 0, "(trap '' HUP; " INJECT("pwrite64:signal=SIGHUP:when=1") INSTALL "$W/big.img)");
	store_end(&p);
}

Test(image, no_room, .timeout = 60)
{
	struct place p = store_new();

	if (sh(&p, "unshare -m sh -c 'mkdir $S/images && mount -t tmpfs -o size=2m none $S/images'; r=$?; rmdir $S/images; exit $r") != 0) {
		store_end(&p);
		cr_skip("no mount namespace here");
	}
	EXPECT_SH(&p, 0, BIG "export G; unshare -m sh -ec 'mkdir $S/images; mount -t tmpfs -o size=2m none $S/images; ! " INSTALL "$W/big.img; " EMPTY
			 "; truncate -s 512M $W/holes.img; " INSTALL "$W/holes.img; $G image list'");
	EXPECT_SAYS(&p, "needs 3 MiB, and there are 2 MiB free");
	EXPECT_SAYS(&p, "\nholes ");
	store_end(&p);
}

Test(image, one_of_four_wins, .timeout = 60)
{
	struct place p = store_new();

	EXPECT_SH(&p, 0, BIG "for i in 1 2 3 4; do (printf $i >>$W/big$i; cat $W/big.img >>$W/big$i; truncate -s 4M $W/big$i;" INSTALL
			     "--name x $W/big$i; echo $? >$W/code$i) & done; wait; cat $W/code? | sort | tr -d '\\n' | grep -x 0555");
	EXPECT_SH(&p, 0, "[ $(ls -A $S/images | wc -l) = 3 ] && f=" FILE_OF("x") " && sha256sum $W/big? | grep -q ^$(sha256sum <$f | cut -c1-64)");
	/* the same in upgrades: all are done, one after the other, and one file is left */
	EXPECT_SH(&p, 0, "for i in 1 2 3 4; do ($G image upgrade --name x $W/big$i; echo $? >$W/code$i) & done; wait; cat $W/code? | tr -d '\\n' | grep -x 0000");
	EXPECT_SH(&p, 0, "[ $(ls -A $S/images | wc -l) = 3 ] && f=" FILE_OF("x") " && [ $(basename $f) = x@$(sha256sum <$f | cut -c1-12).raw ]");
	store_end(&p);
}

/* A qemu-img that does @script with the arguments of the real one, which is $REAL. */
static void fake_tool(struct place *p, const char *script)
{
	AUTO_FREE char *cmd = xasprintf("mkdir -p $W/bin && { echo '#!/bin/sh'; echo REAL=$(command -v qemu-img); cat <<'END'\n%s\nEND\n} >$W/bin/qemu-img"
					" && chmod 755 $W/bin/qemu-img", script);

	EXPECT_SH(p, 0, cmd);
}

#define WITH_TOOL "PATH=$W/bin:$PATH; "

Test(image, qemu_img_that_does_not_behave, .timeout = 60)
{
	struct place p = store_new();

	fake_tool(&p, "echo \"$1 $(ulimit -v) $(ulimit -t)\" >>${0%/*}/limits; exec $REAL \"$@\"");
	EXPECT_SH(&p, 0, WITH_TOOL INSTALL "$W/a.qcow2 && cat $W/bin/limits");
	EXPECT_SAYS(&p, "info 1048576 30\n");
	EXPECT_SAYS(&p, "check 4194304 600");
	EXPECT_SH(&p, 0, "$G image remove a");
	/* it prints without end, dies, fails without a word, says nothing of use, is not there */
	fake_tool(&p, "exec yes");
	EXPECT_SH(&p, 1, WITH_TOOL INSTALL "$W/a.qcow2");
	fake_tool(&p, "kill -SEGV $$");
	EXPECT_SH(&p, 1, WITH_TOOL INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "qemu-img ended with killed by signal 11");
	fake_tool(&p, "kill -XCPU $$");
	EXPECT_SH(&p, 1, WITH_TOOL INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "more than 30 s of CPU time");
	fake_tool(&p, "exit 3");
	EXPECT_SH(&p, 1, WITH_TOOL INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "qemu-img ended with exit code 3");
	fake_tool(&p, "echo {}");
	EXPECT_SH(&p, 1, WITH_TOOL INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "makes no sense");
	EXPECT_SH(&p, 1, "PATH=$W/nowhere " INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "there is no qemu-img");
	/* the check takes long, and somebody presses Ctrl-C */
	fake_tool(&p, "if [ $1 = check ]; then kill -INT $PPID; exec sleep 1000; fi; exec $REAL \"$@\"");
	EXPECT_SH(&p, 1, WITH_TOOL INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "stopped by a signal");
	EXPECT_SH(&p, 0, EMPTY);
	store_end(&p);
}

/* The file changes after it was looked at: the copy is what is judged. */
Test(image, the_copy_is_what_counts, .timeout = 60)
{
	struct place p = store_new();

	/* While the source is looked at, something else is put in its place, of the same size. */
	fake_tool(&p, "case \"$*\" in *a.qcow2) $REAL \"$@\"; r=$?; printf '\\002' | dd of=\"${*##* }\" bs=1 seek=79 conv=notrunc status=none; exit $r;; esac\n"
		      "exec $REAL \"$@\"");
	EXPECT_SH(&p, 1, WITH_TOOL INSTALL "$W/a.qcow2");
	EXPECT_SAYS(&p, "a.qcow2' is marked as corrupt");
	EXPECT_SH(&p, 0, EMPTY);
	/* or of another one */
	fake_tool(&p, "case \"$*\" in *b.img) $REAL \"$@\"; r=$?; echo more >>\"${*##* }\"; exit $r;; esac\nexec $REAL \"$@\"");
	EXPECT_SH(&p, 1, "truncate -s 1M $W/b.img; " WITH_TOOL INSTALL "$W/b.img");
	EXPECT_SAYS(&p, "changes while it is read");
	EXPECT_SH(&p, 0, EMPTY);
	store_end(&p);
}

/* --- who uses it ---------------------------------------------------------------------------------------------------------- */

static struct image found(const struct place *p, const char *name)
{
	AUTO_FREE char *s = statedir(p);
	struct image i = { 0 };
	struct err e = { 0 };

	cr_assert(image_find(s, name, &i, &e) == 0, "%s", e.msg);
	return i;
}

static int make_disk(const struct place *p, const char *name, const struct image *base, uint64_t bytes, struct err *e)
{
	AUTO_FREE char *path = xasprintf("%s/state/disks/%s", p->root, name);

	return disk_create(path, base, bytes, e);
}

Test(image, disks, .timeout = 60)
{
	struct place p = store_new();
	struct image a;
	struct err e = { 0 };

	EXPECT_SH(&p, 0, INSTALL "$W/a.qcow2");
	a = found(&p, "a");
	cr_assert(make_disk(&p, "vm.qcow2", &a, 0, &e) == 0, "%s", e.msg);
	EXPECT_SH(&p, 0, "cd $S/disks && [ $(stat -c %a .) = 711 ] && [ $(stat -c %a vm.qcow2) = 600 ] && qemu-img info --output=json vm.qcow2 |"
			 " jq -e '.[\"virtual-size\"] == 16777216 and .format == \"qcow2\" and .[\"backing-filename-format\"] == \"qcow2\"'");
	EXPECT_SH(&p, 0, "qemu-img info --output=json $S/disks/vm.qcow2 | jq -re '.[\"backing-filename\"]' | grep -x '../images/a@[0-9a-f]*.qcow2'");
	EXPECT_SH(&p, 0, "! qemu-io -c 'read -P 7 0 128k' $S/disks/vm.qcow2 | grep -i fail && qemu-io -c 'write -P 9 0 64k' $S/disks/vm.qcow2");
	/* The store can be moved as a whole. */
	EXPECT_SH(&p, 0, "mv $S $S.moved && ! qemu-io -c 'read -P 9 0 64k' -c 'read -P 7 64k 64k' $S.moved/disks/vm.qcow2 | grep -i fail && mv $S.moved $S");
	/* larger, empty, and what is refused */
	cr_assert(make_disk(&p, "large.qcow2", &a, 64 << 20, &e) == 0, "%s", e.msg);
	cr_assert(make_disk(&p, "empty.qcow2", NULL, 1 << 20, &e) == 0, "%s", e.msg);
	EXPECT_SH(&p, 0, "cd $S/disks && qemu-img info --output=json large.qcow2 | jq -e '.[\"virtual-size\"] == 67108864' &&"
			 " qemu-img info --output=json empty.qcow2 | jq -e '.[\"virtual-size\"] == 1048576 and .[\"backing-filename\"] == null'");
	cr_expect(make_disk(&p, "vm.qcow2", &a, 0, &e) == -EEXIST, "%s", e.msg);
	cr_expect(make_disk(&p, "small.qcow2", &a, 1 << 20, &e) == -EINVAL && strstr(e.msg, "less than the image 'a' has (16 MiB)"), "%s", e.msg);
	cr_expect(make_disk(&p, "none.qcow2", NULL, 0, &e) == -EINVAL, "%s", e.msg);
	EXPECT_SH(&p, 0, "! qemu-io -c 'read -P 9 0 64k' $S/disks/vm.qcow2 | grep -i fail");
	EXPECT_SH(&p, 0, "[ \"$(ls -A $S/disks | tr '\\n' ' ')\" = 'empty.qcow2 large.qcow2 vm.qcow2 ' ]");
	/* what a killed one left goes with the next */
	EXPECT_SH(&p, 0, ": >$S/disks/.dead.qcow2.abcdef");
	EXPECT_SH(&p, 0, "rm $S/disks/empty.qcow2");
	cr_assert(make_disk(&p, "empty.qcow2", NULL, 1 << 20, &e) == 0, "%s", e.msg);
	EXPECT_SH(&p, 1, "ls -A $S/disks | grep '^\\.'");
	image_clear(&a);
	store_end(&p);
}

/* A file that somebody holds a lock on is being made. */
Test(image, temporary_files_of_the_living, .timeout = 60)
{
	struct place p = store_new();

	EXPECT_SH(&p, 0, "mkdir $S/images; : >$S/images/.a.abcdef; : >$S/images/.b.abcdef; flock -n $S/images/.a.abcdef $G image install $W/a.qcow2 &&"
			 " [ -e $S/images/.a.abcdef ] && [ ! -e $S/images/.b.abcdef ]");
	EXPECT_SH(&p, 0, INSTALL "--name c $W/a.qcow2 && [ ! -e $S/images/.a.abcdef ]");
	store_end(&p);
}

/* The definition of @name with @disk; in $C. */
static void define(struct place *p, const char *name, const char *disk)
{
	AUTO_FREE char *cmd = xasprintf("printf '[vm]\\nname = %s\\n[disk os]\\nfile = %%s\\nformat = qcow2\\n' \"%s\" >$C/%s.ini", name, disk, name);

	EXPECT_SH(p, 0, cmd);
}

Test(image, remove_is_refused_while_it_is_used, .timeout = 60)
{
	struct place p = store_new();
	struct image a;
	struct err e = { 0 };

	EXPECT_SH(&p, 0, INSTALL "$W/a.qcow2; " INSTALL "--name b $W/a.qcow2");
	a = found(&p, "a");
	/* an overlay */
	cr_assert(make_disk(&p, "vm.qcow2", &a, 0, &e) == 0, "%s", e.msg);
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "image 'a' is needed by '");
	EXPECT_SAYS(&p, "/state/disks/vm.qcow2'");
	/* an overlay of it that lies elsewhere, and a definition that names that; the VM's own disk is gone */
	EXPECT_SH(&p, 0, "mkdir $S/old && mv $S/disks/vm.qcow2 $S/old/ && cd $W && qemu-img create -q -f qcow2 -b $S/old/vm.qcow2 -F qcow2 snap.qcow2");
	define(&p, "vm", "$W/snap.qcow2");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "conf/vm.ini'");
	/* an overlay of an overlay, in the folder of disks, with a backing file in JSON */
	EXPECT_SH(&p, 0, "rm $C/vm.ini; cd $S/disks && qemu-img create -q -f qcow2 -u -F qcow2 -b"
			 " \"json:{\\\"driver\\\":\\\"qcow2\\\",\\\"file\\\":{\\\"driver\\\":\\\"file\\\",\\\"filename\\\":\\\"" FILE_OF("a") "\\\"}}\" j.qcow2 16M");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "/disks/j.qcow2'");
	EXPECT_SH(&p, 0, "cd $S/disks && rm j.qcow2 && qemu-img create -q -f qcow2 -b ../old/vm.qcow2 -F qcow2 snap2.qcow2");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "/disks/snap2.qcow2'");
	EXPECT_SH(&p, 0, "$G image list --json | jq -e '.[0].used_by | length == 1' && $G image list --json | jq -e '.[1].used_by == []'");
	/* a definition that names the image itself */
	EXPECT_SH(&p, 0, "rm $S/disks/*");
	define(&p, "ro", "$(echo $S/images/a@*)");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "conf/ro.ini'");
	/* what cannot be judged may use anything */
	EXPECT_SH(&p, 0, "echo '[disk' >$C/ro.ini");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "it cannot be told whether image 'a' is needed: '");
	EXPECT_SAYS(&p, "ro.ini' is no valid definition");
	EXPECT_SH(&p, 0, "$G image list");
	EXPECT_SAYS(&p, "warning: it cannot be told");
	EXPECT_SH(&p, 0, "rm $C/ro.ini; head -c 60 $W/a.qcow2 >$S/disks/bad.qcow2");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "disks/bad.qcow2'");
	EXPECT_SH(&p, 0, "cd $S/disks; rm bad.qcow2; qemu-img create -q -f qcow2 -u -b two.qcow2 -F qcow2 one.qcow2 1M;"
			 " qemu-img create -q -f qcow2 -u -b one.qcow2 -F qcow2 two.qcow2 1M");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "has no end");
	/* What a guest has written into a raw disk keeps nobody from anything. */
	EXPECT_SH(&p, 0, "cd $S/disks; rm *; { printf 'QFI\\373'; head -c 500 /dev/zero | tr '\\0' '\\377'; } >guests.img");
	EXPECT_SH(&p, 0, "$G image list 2>&1 | { ! grep -F 'cannot be told'; }");
	/* A raw disk is nobody's overlay, and one whose backing file is missing needs no image. */
	EXPECT_SH(&p, 0, "cd $S/disks; rm *; truncate -s 1M raw.img; qemu-img create -q -f qcow2 -u -b gone.qcow2 -F qcow2 lost.qcow2 1M; mkfifo pipe");
	EXPECT_SH(&p, 0, "$G image remove a && [ ! -e " "$S/images/a.json ] && ! ls $S/images/a@*");
	image_clear(&a);
	store_end(&p);
}

/* What a running QEMU has open counts, wherever it was named. */
Test(image, running_vms_use_it, .timeout = 60)
{
	struct place p = store_new();

	EXPECT_SH(&p, 0, INSTALL "$W/a.qcow2 && cd $W && qemu-img create -q -f qcow2 -b " FILE_OF("a") " -F qcow2 o.qcow2");
	/* by --set alone: no definition says so */
	EXPECT_SH(&p, 0, "$L -d --set disk.os.file=$W/o.qcow2 --set disk.os.format=qcow2 " DEMO);
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "image 'a' is needed by '");
	EXPECT_SH(&p, 0, "$G image list --json | jq -e --arg dir $R/demo '.[0].used_by | index($dir)'");
	EXPECT_SH(&p, 0, "$G kill demo && $G image remove a");
	store_end(&p);
}

Test(image, upgrade_keeps_what_disks_need, .timeout = 60)
{
	struct place p = store_new();
	struct image a;
	struct err e = { 0 };

	EXPECT_SH(&p, 0, INSTALL "$W/a.qcow2");
	a = found(&p, "a");
	cr_assert(make_disk(&p, "vm.qcow2", &a, 0, &e) == 0, "%s", e.msg);
	EXPECT_SH(&p, 0, "$G image upgrade $W/a.qcow2");
	EXPECT_SAYS(&p, "is that one already");
	EXPECT_SH(&p, 0, "cp $S/images/a.json $W; mv $W/a.qcow2 $W/b; $G image upgrade --name a --json $W/b 2>/dev/null >$W/out; mv $W/b $W/a.qcow2;"
			 " jq -e --arg src $W/a.qcow2 '(.changed | not) and .source == $src' $W/out && cmp $W/a.json $S/images/a.json");
	EXPECT_SH(&p, 0, "cp $W/a.qcow2 $W/v2; qemu-io -c 'write -P 8 0 128k' $W/v2; $G image upgrade --name a $W/v2 && cmp $W/v2 " FILE_OF("a"));
	EXPECT_SH(&p, 0, "! qemu-io -c 'read -P 7 0 128k' $S/disks/vm.qcow2 | grep -i fail");
	EXPECT_SH(&p, 0, "$G image list --json | jq -e '.[0] | (.older | length == 1) and (.used_by | length == 1)'");
	EXPECT_SH(&p, 0, "$G image list");
	EXPECT_SAYS(&p, "(with 1 older version)");
	EXPECT_SH(&p, 5, "$G image remove a");
	EXPECT_SAYS(&p, "/disks/vm.qcow2'");
	/* a new disk is on the new one */
	image_clear(&a);
	a = found(&p, "a");
	cr_assert(make_disk(&p, "new.qcow2", &a, 0, &e) == 0, "%s", e.msg);
	EXPECT_SH(&p, 0, "! qemu-io -c 'read -P 8 0 128k' $S/disks/new.qcow2 | grep -i fail");
	/* A version that is in between and unused goes; the oldest stays; back to it: the very file that disks have */
	EXPECT_SH(&p, 0, "rm $S/disks/new.qcow2; i=$(stat -c %i " "$S/images/a@$(sha256sum <$W/a.qcow2 | cut -c1-12).qcow2);"
			 " $G image upgrade $W/a.qcow2 && [ $(ls $S/images | grep -c @) = 1 ] && [ $(stat -c %i " FILE_OF("a") ") = $i ]");
	EXPECT_SH(&p, 0, "! qemu-io -c 'read -P 7 0 128k' $S/disks/vm.qcow2 | grep -i fail");
	/* unused: the old one goes with the upgrade, the last one with its image */
	EXPECT_SH(&p, 0, "rm $S/disks/vm.qcow2; $G image upgrade --name a $W/v2 && [ $(ls $S/images | grep -c @) = 1 ]");
	/* the same again puts a file back that is missing */
	EXPECT_SH(&p, 0, "rm " FILE_OF("a") "; $G image upgrade --name a $W/v2 && cmp $W/v2 " FILE_OF("a"));
	/* While something cannot be judged, nothing goes. */
	EXPECT_SH(&p, 0, "echo '[disk' >$C/x.ini; $G image upgrade --name a $W/a.qcow2 && [ $(ls $S/images | grep -c @) = 2 ]");
	EXPECT_SAYS(&p, "stays, because it cannot be told");
	EXPECT_SH(&p, 0, "rm $C/x.ini; $G image remove a && " EMPTY);
	image_clear(&a);
	store_end(&p);
}

/* An old file that has rotted must not become the new one. */
Test(image, a_damaged_older_file, .timeout = 60)
{
	struct place p = store_new();
	struct image a;
	struct err e = { 0 };

	EXPECT_SH(&p, 0, INSTALL "$W/a.qcow2");
	a = found(&p, "a");
	cr_assert(make_disk(&p, "vm.qcow2", &a, 0, &e) == 0, "%s", e.msg);
	EXPECT_SH(&p, 0, "f=" FILE_OF("a") "; cp $W/a.qcow2 $W/v2; qemu-io -c 'write -P 8 0 128k' $W/v2; $G image upgrade --name a $W/v2; chmod 644 $f; echo x >>$f");
	EXPECT_SH(&p, 5, "$G image upgrade $W/a.qcow2");
	EXPECT_SAYS(&p, "is there with other contents");
	EXPECT_SH(&p, 0, "cmp $W/v2 " FILE_OF("a"));
	image_clear(&a);
	store_end(&p);
}

Test(image, damaged_records, .timeout = 60)
{
	static const struct {
		const char *damage, *says;
	} rows[] = {
		{ "echo nonsense >$S/images/a.json", "it is not JSON" },
		{ "echo '[]' >$S/images/a.json", "it is not JSON" },
		{ "jq '.schema = 2' $W/a.json >$S/images/a.json", "another version of gpuvm" },
		{ "jq 'del(.sha256)' $W/a.json >$S/images/a.json", "a field is missing" },
		{ "jq '.bytes = -1' $W/a.json >$S/images/a.json", "a field is missing or of a wrong type" },
		{ "jq '.file = \"../../etc/passwd\"' $W/a.json >$S/images/a.json", "the name of its file" },
		{ "jq '.file = \"b@012345678901.qcow2\"' $W/a.json >$S/images/a.json", "the name of its file" },
	};
	struct place p = store_new();

	EXPECT_SH(&p, 0, INSTALL "$W/a.qcow2 && cp $S/images/a.json $W");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		EXPECT_SH(&p, 0, rows[i].damage);
		EXPECT_SH(&p, 1, "$G image list");
		cr_expect(strstr(p.out, rows[i].says) && strstr(p.out, "images/a.json' is damaged"), "row %zu: %s", i, p.out);
		EXPECT_SH(&p, 1, "$G image remove a");
		EXPECT_SH(&p, 1, "$G image upgrade $W/a.qcow2");
		/* Its file may be the one that the record means: it is not garbage. */
		EXPECT_SH(&p, 0, INSTALL "--name b $W/a.qcow2 && $G image remove b && ls $S/images/a@*");
	}
	store_end(&p);
}

/* --- qemu-img's answers ----------------------------------------------------------------------------------------------------- */

Test(image, info_is_parsed_or_refused)
{
	static const char *const bad[] = { "", "nonsense", "{", "[]", "{}", "{\"format\": 1, \"virtual-size\": 1}", "{\"format\": \"raw\"}",
					   "{\"format\": \"raw\", \"virtual-size\": -1}" };
	struct disk_info d = { 0 };
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_expect(disk_info_parse(bad[i], &d, &e) == -EPROTO && !d.format, "row %zu", i);
	cr_assert(disk_info_parse("qemu-img: warning: {odd}\n{\"format\": \"raw\", \"virtual-size\": 5, \"backing-filename\": \"x\"}", &d, &e) == 0);
	cr_expect(d.virtual_bytes == 5 && strcmp(d.backing, "x") == 0 && !d.dirty && !d.corrupt);
	disk_info_clear(&d);
}

static size_t read_head(const struct place *p, const char *name, uint8_t head[QCOW2_HEAD])
{
	AUTO_FREE char *path = xasprintf("%s/work/%s", p->root, name);
	FILE *f = fopen(path, "re");
	size_t n = f ? fread(head, 1, QCOW2_HEAD, f) : 0;

	cr_assert(f, "%s", path);
	fclose(f);
	return n;
}

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Of whatever qemu-img makes, what it says of it itself. */
Test(image, what_a_qcow2_is_made_on, .timeout = 60)
{
	static const char *const made[] = { "z.qcow2 1M", "-b base.raw -F raw z.qcow2", "-b $W/a.qcow2 -F qcow2 z.qcow2", "-o compat=0.10 -b base.raw -F raw z.qcow2",
					    "-o cluster_size=2M -b base.raw -F raw z.qcow2", "-o cluster_size=512 -b a.qcow2 -F qcow2 z.qcow2",
					    "-o data_file=$W/data,data_file_raw=on z.qcow2 1M", "-u -b $(printf %01000d 0) -F qcow2 z.qcow2 1M", "-u -b nbd://h/x -F raw z.qcow2 1M" };
	AUTO_FREE uint8_t *head = xcalloc(QCOW2_HEAD, 1);
	struct place p = store_new();
	AUTO_FREE char *z = xasprintf("%s/work/z.qcow2", p.root);

	EXPECT_SH(&p, 0, "truncate -s 1M $W/base.raw");
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		AUTO_FREE char *cmd = xasprintf("cd $W && qemu-img create -q -f qcow2 %s", made[i]), *name = NULL, *format = NULL;
		struct disk_info d = { 0 };
		struct err e = { 0 };
		size_t n;

		EXPECT_SH(&p, 0, cmd);
		n = read_head(&p, "z.qcow2", head);
		cr_assert(disk_info_read(z, "qcow2", &d, &e) == 0, "%s", e.msg);
		cr_assert(qcow2_backing(head, n, &name, &format, &e) == 0, "%s: %s", made[i], e.msg);
		cr_expect(same(name, d.backing) && same(format, d.backing_format), "%s: %s %s", made[i], name, format);
		cr_expect(!name == (i == 0 || i == 6), "%s", made[i]);
		/* What ends within its header, or has no text there, is not taken for something else. */
		for (size_t cut = 0; cut < 4096 && cut < n; cut++) {
			AUTO_FREE char *name2 = NULL, *format2 = NULL;
			int r = qcow2_backing(head, cut, &name2, &format2, &e);

			cr_expect(r == -EINVAL || (r == 0 && same(name, name2) && same(format, format2)), "%s: %zu bytes", made[i], cut);
		}
		if (name) {
			AUTO_FREE uint8_t *none = xcalloc(QCOW2_HEAD, 1);
			AUTO_FREE char *name2 = NULL, *format2 = NULL;

			memcpy(none, head, n);
			memset(none + 16, 0, 4); /* a name of no length is none to QEMU */
			cr_expect(qcow2_backing(none, n, &name2, &format2, &e) == 0 && !name2 && !format2, "%s: %s", made[i], e.msg);
			head[9] = 1; /* its place, far beyond */
		}
		if (name) {
			AUTO_FREE char *name2 = NULL, *format2 = NULL;

			cr_expect(qcow2_backing(head, n, &name2, &format2, &e) == -EINVAL && !name2 && strstr(e.msg, "where none can be"), "%s", made[i]);
		}
		disk_info_clear(&d);
		EXPECT_SH(&p, 0, "rm $W/z.qcow2");
	}
	store_end(&p);
}

Test(image, where_a_backing_file_is)
{
	static const char *const rows[][3] = { { "/d/a.qcow2", "b", "/d/b" }, { "/d/a.qcow2", "../b", "/d/../b" }, { "/d/a.qcow2", "/b:1", "/b:1" }, { "/d/a.qcow2", "./b:1", "/d/./b:1" },
					       { "/d/a.qcow2", "nbd://h/b", NULL }, { "/d/a.qcow2", "json:{}", NULL }, { "/a", "b", "/b" } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *path = qcow2_backing_path(rows[i][0], rows[i][1]);

		cr_expect(same(path, rows[i][2]), "%s: %s", rows[i][1], path);
	}
}

/* What a VM's disk needs: not what a guest has written into the raw file below it. */
Test(image, chain, .timeout = 60)
{
	struct place p = store_new();
	struct strv v = { 0 };
	struct err e = { 0 };
	AUTO_FREE char *two = xasprintf("%s/work/two.qcow2", p.root), *one = xasprintf("%s/work/one.qcow2", p.root), *raw = xasprintf("%s/work/raw", p.root);

	EXPECT_SH(&p, 0, "cd $W && qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw raw 1M && qemu-img create -q -f qcow2 -u -b raw -F raw one.qcow2 1M &&"
			 " qemu-img create -q -f qcow2 -b one.qcow2 -F qcow2 two.qcow2");
	cr_assert(disk_chain(two, &v, &e) == 0, "%s", e.msg);
	cr_expect(v.n == 2 && strcmp(v.v[0], one) == 0 && strcmp(v.v[1], raw) == 0, "%zu: %s", v.n, v.v[0]);
	strv_clear(&v);
	EXPECT_SH(&p, 0, "rm $W/raw");
	cr_expect(disk_chain(two, &v, &e) == -ENOENT && strstr(e.msg, "one.qcow2' is made on: '") && strstr(e.msg, "/raw': No such file"), "%s", e.msg);
	EXPECT_SH(&p, 0, "cd $W && qemu-img create -q -f qcow2 -u -b two.qcow2 -F qcow2 one.qcow2 1M");
	cr_expect(disk_chain(two, &v, &e) == -ELOOP && strstr(e.msg, "has no end"), "%s", e.msg);
	strv_clear(&v);
	/* Nothing is opened that is no disk, and names are for people to read. */
	EXPECT_SH(&p, 0, "cd $W && mkfifo pipe && qemu-img create -q -f qcow2 -u -b pipe -F qcow2 one.qcow2 1M");
	cr_expect(disk_chain(two, &v, &e) == -EINVAL && strstr(e.msg, "/pipe' is neither a file nor a block device"), "%s", e.msg);
	strv_clear(&v);
	EXPECT_SH(&p, 0, "cd $W && qemu-img create -q -f qcow2 -u -b \"$(printf 'a\\033[31mb')\" -F qcow2 one.qcow2 1M");
	cr_expect(disk_chain(one, &v, &e) == -EINVAL && strstr(e.msg, "characters that no name has here"), "%s", e.msg);
	EXPECT_SH(&p, 0, "cd $W && qemu-img create -q -f qcow2 -u -b \"$(printf 'a\\377b')\" -F qcow2 one.qcow2 1M");
	cr_expect(disk_chain(one, &v, &e) == -EINVAL && strstr(e.msg, "characters that no name has here"), "%s", e.msg);
	EXPECT_SH(&p, 0, "echo text >$W/one.qcow2");
	cr_expect(disk_chain(two, &v, &e) == -EINVAL && strstr(e.msg, "/one.qcow2': it does not begin as a qcow2 file does"), "%s", e.msg);
	strv_clear(&v);
	store_end(&p);
}

Test(image, names)
{
	static const struct {
		const char *path, *name;
	} rows[] = { { "/x/debian-12.qcow2", "debian-12" }, { "a.img", "a" },	   { "b.raw", "b" },	    { "noble-24.04", "noble-24.04" },
		     { "x.tar.qcow2", "x.tar" },	    { ".qcow2", NULL },	   { "/x/", NULL },	    { "a b.img", NULL },
		     { "a@b.img", NULL },		    { "-a.img", NULL },	   { "a.qcow2.img", "a.qcow2" } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		AUTO_FREE char *name = image_name_from_file(rows[i].path);

		cr_expect(rows[i].name ? name && strcmp(name, rows[i].name) == 0 : !name, "%s: %s", rows[i].path, name ? name : "none");
	}
	cr_expect(image_file_is_of("a@012345abcdef.qcow2", "a"));
	cr_expect(image_file_is_of("a@012345abcdef.raw", "a"));
	cr_expect(!image_file_is_of("a@012345abcdef.qcow", "a"));
	cr_expect(!image_file_is_of("a@012345abcde.qcow2", "a"));
	cr_expect(!image_file_is_of("a@012345abcdef/../../x.raw", "a"));
	cr_expect(!image_file_is_of("ab@012345abcdef.raw", "a"));
	cr_expect(!image_file_is_of("a", "ab"));
}
