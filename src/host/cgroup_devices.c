/* SPDX-License-Identifier: GPL-2.0-or-later */
/* cgroup_devices.c - the device nodes that a cgroup's processes may open.
 *
 * Version 2 has no file for that: a program of type BPF_PROG_TYPE_CGROUP_DEVICE is asked at each open() of a node and each mknod() (cgroup-v2.rst, "Device
 * controller"; struct bpf_cgroup_dev_ctx in linux/bpf.h).  Ours compares type and number with a list and says no to all else.  It is the cgroup's: it goes with it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "gpuvm/cgroup.h"

#define INSN(op, dst, src, o, i) ((struct bpf_insn){ .code = (op), .dst_reg = (dst), .src_reg = (src), .off = (short)(o), .imm = (int)(i) })
#define LOAD(dst, field)	 INSN(BPF_LDX | BPF_W | BPF_MEM, dst, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, field), 0)
#define SKIP_UNLESS(reg, is, n)	 INSN(BPF_JMP32 | BPF_JNE | BPF_K, reg, 0, n, is)
#define ANSWER(is)		 INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, is), INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

#define HEAD_INSNS   8
#define DEVICE_INSNS 6 /* at the most */

static long sys_bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int open_cgroup(const char *path, struct err *e)
{
	AUTO_FREE char *dir = xasprintf(CGROUP_MOUNT "%s", path);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? err_sys(e, -errno, "open '%s'", dir) : fd;
}

/* r2: type, r3: major, r4: minor. */
static size_t write_program(struct bpf_insn *p, const struct cgroup_device *v, size_t n)
{
	const struct bpf_insn head[HEAD_INSNS] = {
		LOAD(BPF_REG_2, access_type),
		LOAD(BPF_REG_3, major),
		LOAD(BPF_REG_4, minor),
		/* The lower half is the type, the upper one what is wanted: nodes are made by nobody. */
		INSN(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_5, BPF_REG_2, 0, 0),
		INSN(BPF_ALU | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff),
		INSN(BPF_ALU | BPF_RSH | BPF_K, BPF_REG_5, 0, 0, 16),
		INSN(BPF_JMP32 | BPF_JSET | BPF_K, BPF_REG_5, 0, 1, BPF_DEVCG_ACC_MKNOD),
		INSN(BPF_JMP | BPF_JA, 0, 0, 2, 0),
	};
	const struct bpf_insn no[] = { ANSWER(0) }, yes[] = { ANSWER(1) };
	size_t at = HEAD_INSNS;

	memcpy(p, head, sizeof(head));
	memcpy(p + at, no, sizeof(no));
	at += ARRAY_SIZE(no);
	for (size_t i = 0; i < n; i++) {
		int rest = 3 + !v[i].any_minor + v[i].read_only;

		p[at++] = SKIP_UNLESS(BPF_REG_2, v[i].block ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, rest);
		p[at++] = SKIP_UNLESS(BPF_REG_3, v[i].major, rest - 1);
		if (!v[i].any_minor)
			p[at++] = SKIP_UNLESS(BPF_REG_4, v[i].minor, 2 + v[i].read_only);
		if (v[i].read_only)
			p[at++] = INSN(BPF_JMP32 | BPF_JSET | BPF_K, BPF_REG_5, 0, 2, BPF_DEVCG_ACC_WRITE);
		memcpy(p + at, yes, sizeof(yes));
		at += ARRAY_SIZE(yes);
	}
	memcpy(p + at, no, sizeof(no));
	return at + ARRAY_SIZE(no);
}

int cgroup_allow_devices(const char *path, const struct cgroup_device *v, size_t n, struct err *e)
{
	AUTO_FREE struct bpf_insn *insns = xcalloc(HEAD_INSNS + n * DEVICE_INSNS + 4, sizeof(*insns));
	AUTO_CLOSE int cgroup = open_cgroup(path, e);
	AUTO_CLOSE int program = -1;
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE };

	if (cgroup < 0)
		return cgroup;
	attr.insns = (uint64_t)(uintptr_t)insns;
	attr.insn_cnt = (uint32_t)write_program(insns, v, n);
	attr.license = (uint64_t)(uintptr_t)"GPL";
	program = (int)sys_bpf(BPF_PROG_LOAD, &attr);
	if (program < 0)
		return err_sys(e, -errno, "load a program for the devices of cgroup '%s'", path);
	attr = (union bpf_attr){ .target_fd = (uint32_t)cgroup };
	attr.attach_bpf_fd = (uint32_t)program;
	attr.attach_type = BPF_CGROUP_DEVICE;
	if (sys_bpf(BPF_PROG_ATTACH, &attr) < 0)
		return err_sys(e, -errno, "limit the devices of cgroup '%s'", path);
	return 0;
}

int cgroup_limits_devices(const char *path)
{
	struct err e;
	AUTO_CLOSE int cgroup = open_cgroup(path, &e);
	union bpf_attr attr = { 0 };

	if (cgroup < 0)
		return cgroup;
	attr.query.target_fd = (uint32_t)cgroup;
	attr.query.attach_type = BPF_CGROUP_DEVICE;
	if (sys_bpf(BPF_PROG_QUERY, &attr) < 0)
		return -errno;
	return attr.query.prog_cnt > 0;
}

bool cgroup_device_of(const char *path, struct cgroup_device *ret)
{
	struct stat st;

	if (stat(path, &st) < 0 || (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode)))
		return false;
	*ret = (struct cgroup_device){ .block = S_ISBLK(st.st_mode), .major = major(st.st_rdev), .minor = minor(st.st_rdev) };
	return true;
}
