/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer entry: the words of a command, one a line: first the program, gpuvm-launch or anything else for gpuvm. They are run by a thread that may
 * not change anything: a seccomp filter refuses files to be made or written, processes to be started or signalled, sockets to be connected.
 * What --set says is parsed together with a definition, as that is never reached otherwise.
 * covers: src/cmd/main_launch.c src/cmd/main_gpuvm.c src/cmd/common.c src/cmd/create.c src/cmd/diff.c src/cmd/doctor.c src/cmd/image.c src/cmd/plan.c src/cmd/topo.c src/cmd/version.c */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

int launch_main(int argc, char **argv);
int gpuvm_main(int argc, char **argv);

#define main launch_main
#include "src/cmd/main_launch.c"
#undef main
#define main gpuvm_main
#include "src/cmd/main_gpuvm.c"
#undef main

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WORDS_MAX 64

static const char definition[] = "[vm]\nname = demo\n[memory]\nsize = 256M\n[disk os]\nfile = /x.qcow2\n[net lan]\ntype = user\n[device gpu]\npci = 17:00.0\n";

#define REFUSE(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
/* With any of @flags in the low word of argument @arg. */
#define REFUSE_FLAGS(call, arg, flags)                                                                                             \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 4),                                                                        \
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[arg])),                                    \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (flags), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM), \
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))

static void refuse_effects(void)
{
	static struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		REFUSE_FLAGS(SYS_open, 1, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC), REFUSE_FLAGS(SYS_openat, 2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC),
		REFUSE(SYS_openat2), REFUSE(SYS_creat), REFUSE(SYS_truncate), REFUSE(SYS_mkdir), REFUSE(SYS_mkdirat), REFUSE(SYS_rmdir),
		REFUSE(SYS_unlink), REFUSE(SYS_unlinkat), REFUSE(SYS_rename), REFUSE(SYS_renameat), REFUSE(SYS_renameat2), REFUSE(SYS_link), REFUSE(SYS_linkat),
		REFUSE(SYS_symlink), REFUSE(SYS_symlinkat), REFUSE(SYS_mknod), REFUSE(SYS_mknodat), REFUSE(SYS_chmod), REFUSE(SYS_fchmodat), REFUSE(SYS_chown),
		REFUSE(SYS_fork), REFUSE(SYS_vfork), REFUSE(SYS_clone), REFUSE(SYS_clone3), REFUSE(SYS_execve), REFUSE(SYS_execveat), REFUSE(SYS_kill),
		REFUSE(SYS_pidfd_send_signal), REFUSE(SYS_connect), REFUSE(SYS_bind), REFUSE(SYS_sendto), REFUSE(SYS_sendmsg), REFUSE(SYS_mount), REFUSE(SYS_init_module),
		REFUSE(SYS_finit_module), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		abort();
}

static void apply_sets(const struct strv *sets)
{
	struct problems ps = { 0 };
	struct vm_config vm;

	if (config_parse("demo", definition, strlen(definition), sets, &vm, &ps) < 0 && !ps.n)
		abort();
	config_clear(&vm);
	problems_clear(&ps);
}

static void launcher(struct strv *words)
{
	struct launch_args a = { 0 };

	if (parse((int)words->n, words->v, &a) == 0 && !a.done)
		apply_sets(&a.launch.sets);
	strv_clear(&a.launch.sets);
	strv_clear(&a.launch.trace);
	optind = 0;
	(void)launch_main((int)words->n, words->v);
}

static void *run(void *ctx)
{
	struct strv *words = ctx;

	refuse_effects();
	optind = 0;
	if (strcmp(words->v[0], "gpuvm-launch") == 0)
		launcher(words);
	else
		(void)gpuvm_main((int)words->n, words->v);
	return NULL;
}

static void set_up(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	setenv("GPUVM_RUNDIR", "/nowhere/run", 1);
	setenv("GPUVM_STATEDIR", "/nowhere/state", 1);
	setenv("GPUVM_CONFDIR", "/nowhere/etc", 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = xstrndup((const char *)data, size);
	struct strv words = { 0 };
	char *save = NULL;
	pthread_t thread;

	set_up();
	for (char *w = strtok_r(text, "\n", &save); w && words.n < WORDS_MAX; w = strtok_r(NULL, "\n", &save))
		strv_push(&words, w);
	if (words.n) {
		if (pthread_create(&thread, NULL, run, &words) != 0 || pthread_join(thread, NULL) != 0)
			abort();
	}
	strv_clear(&words);
	return 0;
}
