/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Logs that a guest makes grow stay below their limit, with the last lines there. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "gpuvm/launch.h"
#include "programs.h"

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : -1;
}

Test(logs, newer_half_is_kept)
{
	char dir[] = "/tmp/gpuvm-logs-XXXXXX";
	AUTO_FREE char *path = NULL, *old = NULL, *text = NULL, *link_path = NULL;
	AUTO_CLOSE int writer = -1;
	struct err e = { 0 };
	struct stat st;

	cr_assert(mkdtemp(dir));
	path = xasprintf("%s/serial.log", dir);
	old = xasprintf("%s.1", path);
	link_path = xasprintf("%s/link", dir);
	cr_expect(logs_trim_file(path, 8, &e) == 0, "none: %s", e.msg);
	writer = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	cr_assert(write_all(writer, "12345678", 8) == 0);
	cr_expect(logs_trim_file(path, 8, &e) == 0 && size_of(path) == 8 && size_of(old) < 0);
	cr_assert(write_all(writer, "9abc", 4) == 0);
	cr_expect(logs_trim_file(path, 8, &e) == 0 && size_of(path) == 0, "%s", e.msg);
	cr_assert(read_text_file(old, 100, &text) == 0);
	cr_expect_str_eq(text, "9abc");
	cr_expect(stat(old, &st) == 0 && (st.st_mode & 0777) == 0600);
	/* Who appends goes on at the beginning: no hole. */
	cr_assert(write_all(writer, "d", 1) == 0);
	cr_expect(size_of(path) == 1);
	/* What somebody has put in its place. */
	cr_assert(write_all(writer, "0123456789", 10) == 0 && symlink(path, link_path) == 0);
	cr_expect(logs_trim_file(link_path, 8, &e) == -ELOOP);
	unlink(link_path);
	cr_assert(link(path, link_path) == 0);
	cr_expect(logs_trim_file(link_path, 8, &e) == -EINVAL && size_of(path) == 11, "%s", e.msg);
	unlink(link_path);
	unlink(path);
	unlink(old);
	rmdir(dir);
}

#define UNTIL(condition) "until " condition "; do sleep 0.1; done"
/* cli; cld; ds = 0; dx = 3f8; again: si = text; cx = 18; rep outsb; jmp again */
#define BOOT "printf '\\372\\061\\300\\216\\330\\374\\272\\370\\003\\276\\023\\174\\271\\022\\000\\363\\156\\353\\366the guest writes\\r\\n' >$R/boot.ini && " \
	     "truncate -s 510 $R/boot.ini && printf '\\125\\252' >>$R/boot.ini && truncate -s 1M $R/boot.ini && "

/* A guest that writes to its console for ever; most of what it may write is there already, so as not to take minutes. */
Test(logs, guest_writes_for_ever, .timeout = 300)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, BOOT "$L -d --set disk.os.file=$R/boot.ini --set disk.os.format=raw " DEMO);
	EXPECT_SH(&p, 0, UNTIL("grep -q 'the guest writes' $R/demo/serial.log"));
	EXPECT_SH(&p, 0, "head -c 16776000 /dev/zero | tr '\\0' x >>$R/demo/serial.log; head -c 16776000 /dev/zero | tr '\\0' y >>$R/demo/qemu.log; "
			 "echo the last line >>$R/demo/qemu.log; head -c 2000 /dev/zero | tr '\\0' z >>$R/demo/qemu.log");
	EXPECT_SH(&p, 0, UNTIL("test -e $R/demo/serial.log.1 -a -e $R/demo/qemu.log.1"));
	/* At most what it writes in a second, and it goes on. */
	EXPECT_SH(&p, 0, UNTIL("grep -q 'the guest writes' $R/demo/serial.log"));
	EXPECT_SH(&p, 0, "test $(stat -c %s $R/demo/serial.log.1) -eq 8388608 -a $(stat -c %s $R/demo/qemu.log.1) -eq 8388608");
	EXPECT_SH(&p, 0, "test $(stat -c %s $R/demo/serial.log) -lt 16777216 -a $(stat -c %s $R/demo/qemu.log) -eq 0");
	EXPECT_SH(&p, 0, "tail -c 100 $R/demo/serial.log.1 | grep -a 'the guest writes' && grep -a 'the last line' $R/demo/qemu.log.1");
	/* Both parts, and no hole between them. */
	EXPECT_SH(&p, 0, "$G log --console demo >$R/all && tail -c 100 $R/all | grep -a 'the guest writes' && grep -ac xxxx $R/all && "
			 "test $(tr -cd '\\000' <$R/all | wc -c) -eq 0; r=$?; rm $R/all; exit $r");
	EXPECT_SH(&p, 0, "$G log --qemu demo | grep 'the last line'");
	/* Its end is as that of another, and the next life begins without them. */
	EXPECT_SH(&p, 0, "$G kill demo");
	EXPECT_SH(&p, 0, "$L -d " DEMO " && ! test -e $R/demo/serial.log.1 -o -e $R/demo/qemu.log.1 && ! grep 'the guest' $R/demo/serial.log; r=$?; $G kill demo; exit $r");
	place_end(&p);
}

/* `gpuvm log -f` and a console that watches go on in a log that was emptied. */
Test(logs, readers_go_on, .timeout = 120)
{
	struct place p = place_new();

	EXPECT_SH(&p, 0, "$L -d " DEMO);
	EXPECT_SH(&p, 0, "echo before >>$R/demo/serial.log; $G log -f --console demo >$R/followed & follower=$!; "
			 "tail -f /dev/null | $G console --watch demo >$R/watched 2>/dev/null & " UNTIL("grep before $R/followed && grep before $R/watched") "; "
			 "truncate -s 0 $R/demo/serial.log; echo after >>$R/demo/serial.log; " UNTIL("grep after $R/followed && grep after $R/watched") "; "
			 "kill $follower; $G kill demo; pkill -P $$ tail; wait; rm $R/followed $R/watched");
	place_end(&p);
}
