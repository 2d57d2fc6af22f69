/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench_count ROOT: what a start decides, once: read the host below ROOT, plan half of its GPUs, make the command.
 * tests/bench/count runs it under callgrind. */
#include <stdio.h>
#include <string.h>

#include "gpuvm/probe.h"
#include "tests/fake/fakeqemu.h"
#include "gpuvm/plan.h"

int main(int argc, char **argv)
{
	struct topology host = { 0 };
	struct problems ps = { 0 };
	struct vm_config vm = { 0 };
	struct host_use use = { 0 };
	struct strv command = { 0 };
	struct plan plan = { 0 };
	struct err e = { 0 };
	struct qemu_info qemu = fake_qemu("10.0");
	struct plan_request req = {
		.vm = &vm, .host = &host, .use = &use, .qemu = &qemu, .rundir = "/run/gpuvm/b", .statedir = "/var/lib/gpuvm"
	};
	AUTO_FREE char *text = NULL;

	if (argc != 2 || probe_host(argv[1], &host, &e) < 0) {
		fprintf(stderr, "usage: bench_count ROOT\n%s\n", e.msg);
		return 2;
	}
	text = xasprintf("[vm]\nname = b\n[place]\ngpus = %d\n[memory]\nhugepages = off\nsize = 2G\n", topology_n_gpus(&host) / 2);
	if (config_parse("b.ini", text, strlen(text), NULL, &vm, &ps) < 0 || plan_make(&req, &plan, &ps) < 0) {
		problems_print(&ps, stderr);
		return 1;
	}
	plan_argv(&plan, NULL, &command);
	printf("%zu\n", command.n);
	strv_clear(&command);
	plan_clear(&plan);
	topology_clear(&host);
	config_clear(&vm);
	return 0;
}
