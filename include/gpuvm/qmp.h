/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qmp.h - QEMU Machine Protocol client over a unix socket (json-c).
 *
 * How it works: messages arrive in any split; qmp_feed() cuts them.  A command is answered in order, but events come
 * between: those are queued for qmp_next_event().  Commands wait with a deadline on {socket, pidfd of QEMU}, so a QEMU
 * that dies is an error at once and never a hang.  QEMU docs/interop/qmp-spec.rst; unknown fields are ignored. */
#ifndef GPUVM_QMP_H
#define GPUVM_QMP_H

#include <stdbool.h>
#include <stdint.h>

#include "gpuvm/err.h"

struct json_object;
struct json_tokener;

struct qmp {
	int fd;
	int pidfd; /* borrowed; -1: none */
	struct json_tokener *tok;
	struct json_object **events; /* queue */
	size_t n_events;
	struct json_object **replies; /* greeting and replies not yet taken */
	size_t n_replies;
	uint64_t next_id;
	const char *ahead; /* set before the handshake: a command without arguments that is sent with qmp_capabilities, for the first qmp_command() of that name */
	uint64_t ahead_id; /* private; 0: not sent */
	size_t partial; /* bytes of the message that is not complete yet */
	unsigned int patience_ms; /* of the questions below; 0: 30 s */
	bool closed; /* the other side closed, or talked nonsense */
	char version[48]; /* from the greeting */
};

/* Create a listening unix socket at @path (mode 0600, SOCK_CLOEXEC): hand it to QEMU as
 * -chardev socket,fd=N,server=on,wait=off.  Returns the fd or -Exxx. */
int qmp_listen(const char *path, struct err *e);

/* Connect; works before QEMU has started when the socket came from qmp_listen(). @pidfd may be -1. */
int qmp_connect(const char *path, int pidfd, struct qmp *ret, struct err *e);
void qmp_close(struct qmp *q);

/* Wait for the greeting, then qmp_capabilities. -ETIMEDOUT, -ESRCH (QEMU ended before it answered), -ECONNRESET.
 * @progress (may be NULL) is called about once a second while waiting. */
int qmp_handshake(struct qmp *q, uint64_t timeout_ms, void (*progress)(void *), void *ctx, struct err *e);

/* Run a command. @args (may be NULL) is consumed. The "return" value is given to @ret (if not NULL; put it after use).
 * -EREMOTEIO: QEMU answered with an error, its text is in @e. */
int qmp_command(struct qmp *q, const char *command, struct json_object *args, uint64_t timeout_ms,
		struct json_object **ret, struct err *e);

/* Only send it, within @timeout_ms, and do not wait: for those that wait for other things too. @args is consumed. The reply is then to be
 * taken by qmp_take_reply() with @ret_id. */
int qmp_send(struct qmp *q, const char *command, struct json_object *args, uint64_t timeout_ms, uint64_t *ret_id, struct err *e);

/* Read what is there without blocking. 0, or -ECONNRESET when the other side has closed (queued events remain). */
int qmp_read(struct qmp *q, struct err *e);

/* Take the oldest event: {"event": "STOP", "data": {...}, ...}; NULL if none. Put it after use. */
struct json_object *qmp_next_event(struct qmp *q);

/* --- the protocol without a socket: src/core/qmp_proto.c, exposed for tests and the fuzzer ---------- */

#define QMP_MESSAGE_MAX (64UL << 20) /* bytes */
#define QMP_DEPTH_MAX   64           /* levels of {} and [] */
#define QMP_QUEUE_MAX   4096         /* events, and as many replies, that nobody has taken */

void qmp_init(struct qmp *q); /* fd -1 */
void qmp_reset(struct qmp *q); /* drop what was received; the fds are the caller's */

/* Cut @len bytes of stream into messages. -EPROTO on what is not QMP, or too deep, large or many: drop the connection. */
int qmp_feed(struct qmp *q, const char *data, size_t len, struct err *e);

/* The greeting, if it has come: sets q->version. 0, -EAGAIN or -EPROTO. */
int qmp_take_greeting(struct qmp *q, struct err *e);

/* The reply to the command with @id, if it has come; late replies to commands that were given up are dropped.
 * 0 with the "return" value in @ret, -EAGAIN, -EREMOTEIO with QEMU's text in @e. */
int qmp_take_reply(struct qmp *q, uint64_t id, struct json_object **ret, struct err *e);

/* --- questions; each is a command and the parser of its reply (-EPROTO), which the fuzzer drives alone ---- */

/* vCPU threads: query-cpus-fast. Owned array sorted by index. */
struct qmp_vcpu {
	int index;
	int tid;
	int socket, core, thread, node; /* -1 if not given */
};
int qmp_parse_vcpus(struct json_object *reply, struct qmp_vcpu **ret, size_t *ret_n, struct err *e);
int qmp_query_vcpus(struct qmp *q, struct qmp_vcpu **ret, size_t *ret_n, struct err *e);

struct qmp_iothread {
	char id[64];
	int tid;
};
int qmp_parse_iothreads(struct json_object *reply, struct qmp_iothread **ret, size_t *ret_n, struct err *e);
int qmp_query_iothreads(struct qmp *q, struct qmp_iothread **ret, size_t *ret_n, struct err *e);

/* "running", "prelaunch", "paused", "internal-error", ...: run state, to @buf. */
int qmp_parse_status(struct json_object *reply, char buf[32], struct err *e);
int qmp_query_status(struct qmp *q, char buf[32], struct err *e);

/* The disk whose write has stopped the guest because the host has no space (query-block, io-status): its node, and the file as QEMU names
 * it. Both are "" if none has, or if another disk has failed for another reason. */
struct qmp_full_disk {
	char node[64];
	char file[256];
};
int qmp_parse_full_disk(struct json_object *reply, struct qmp_full_disk *ret, struct err *e);
int qmp_query_full_disk(struct qmp *q, struct qmp_full_disk *ret, struct err *e);

/* Every PCI function of the guest, bridges included, from query-pci, depth first.
 * Before the firmware has numbered the buses (under -S) QEMU shows nothing below a bridge: its secondary_bus is 0. */
struct qmp_pci {
	int bus, slot, function;
	char qdev_id[64]; /* "" for functions without an id */
	int secondary_bus; /* bridges, else -1 */
	int parent;        /* index of the bridge above, -1 on a root bus */
	uint32_t class_code; /* 16 bits: base and sub */
	struct {
		uint64_t address; /* UINT64_MAX: not mapped */
		uint64_t bytes;
		bool memory;
	} bars[6]; /* those implemented, in the order of their numbers; without the ROM */
	int n_bars;
};
int qmp_parse_pci(struct json_object *reply, struct qmp_pci **ret, size_t *ret_n, struct err *e);
int qmp_query_pci(struct qmp *q, struct qmp_pci **ret, size_t *ret_n, struct err *e);

#endif
