/* SPDX-License-Identifier: GPL-2.0-or-later */
/* node_share.c - what share of a host node a VM's GPUs stand for.
 *
 * How it works: a node with GPUs is shared by them.  Where the firmware cuts a socket into several nodes (AMD:
 * NPS2, NPS4; Intel: SNC), some of them have no GPU at all: on a DGX A100 with NPS4 the GPUs hang from four of
 * eight nodes, and half the cores and half the memory would belong to nobody.  Such a *bare* node serves nodes with
 * GPUs of its socket, dealt out in order, so that each serves one where the numbers fit (two bare, two with GPUs:
 * one each), and all of them where they do not.  So the shares of all GPUs still add up to the machine, they do not
 * depend on who came first, and a VM of all of a socket's GPUs gets all of the socket. */
#include <string.h>

#include "plan_priv.h"

static int vm_gpus(const struct planner *pl, int node)
{
	int n = 0;

	for (size_t i = 0; i < pl->plan->n_devices; i++) {
		const struct plan_device *d = &pl->plan->devices[i];

		n += d->role == ROLE_GPU && planner_func(pl, d->func)->node == node;
	}
	return n;
}

static int host_gpus(const struct planner *pl, int node)
{
	const struct topology *t = pl->req->host;
	int n = 0;

	for (size_t i = 0; i < t->n_funcs; i++)
		n += t->funcs[i].role == ROLE_GPU && t->funcs[i].node == node;
	return n;
}

bool planner_node_is_bare(const struct planner *pl, int node)
{
	const struct topology *t = pl->req->host;
	struct cpuset cpus;

	if (node < 0 || !t->nodes[node].mem_bytes || host_gpus(pl, node))
		return false;
	cpus = t->nodes[node].cpus;
	cpuset_and(&cpus, &t->allowed);
	return !cpuset_empty(&cpus);
}

static int gcd(int a, int b)
{
	return b ? gcd(b, a % b) : a;
}

/* Place of @node among the nodes of its socket that are like it, bare or with GPUs; *@ret_n: how many these are. */
static int rank_on_socket(const struct planner *pl, int node, bool bare, int *ret_n)
{
	const struct topology *t = pl->req->host;
	int rank = 0;

	*ret_n = 0;
	for (size_t i = 0; i < t->n_nodes; i++) {
		if (t->nodes[i].socket != t->nodes[node].socket ||
		    (bare ? !planner_node_is_bare(pl, (int)i) : !host_gpus(pl, (int)i)))
			continue;
		rank += (int)i < node;
		++*ret_n;
	}
	return rank;
}

static bool serves(const struct planner *pl, int bare, int node)
{
	const struct topology *t = pl->req->host;
	int n_bare, n_gpu, a, b, groups;

	if (t->nodes[bare].socket != t->nodes[node].socket || !host_gpus(pl, node))
		return false;
	a = rank_on_socket(pl, bare, true, &n_bare);
	b = rank_on_socket(pl, node, false, &n_gpu);
	groups = gcd(n_bare, n_gpu);
	return n_bare && n_gpu && a * groups / n_bare == b * groups / n_gpu;
}

static int count_served(const struct planner *pl, int node, int (*count)(const struct planner *, int))
{
	int n = 0;

	if (!planner_node_is_bare(pl, node))
		return count(pl, node);
	for (size_t i = 0; i < pl->req->host->n_nodes; i++)
		if (serves(pl, node, (int)i))
			n += count(pl, (int)i);
	return n;
}

int planner_vm_gpus_on(const struct planner *pl, int node)
{
	return count_served(pl, node, vm_gpus);
}

int planner_host_gpus_on(const struct planner *pl, int node)
{
	return count_served(pl, node, host_gpus);
}

/* --- are bare nodes needed? --------------------------------------------------------------------------- */

static uint64_t node_memory(const struct host_node *n)
{
	uint64_t best = 0;

	for (size_t i = 0; i < n->n_pools; i++)
		if (n->pools[i].total * n->pools[i].page_bytes > best)
			best = n->pools[i].total * n->pools[i].page_bytes;
	return best ? best : n->mem_bytes;
}

/* Does what the definition asks for fit on the nodes that have the VM's GPUs?  What it leaves to us is the share of
 * the whole socket. */
static bool gpu_nodes_suffice(const struct planner *pl)
{
	const struct vm_config *vm = pl->req->vm;
	const struct topology *t = pl->req->host;
	uint64_t memory = 0;
	int cpus = 0;

	if (vm->vcpus <= 0 || !vm->memory_bytes)
		return false;
	for (size_t i = 0; i < t->n_nodes; i++) {
		int ours = vm_gpus(pl, (int)i), all = host_gpus(pl, (int)i);

		if (!ours || !all)
			continue;
		/* One core in 24 stays with the host. */
		cpus += cpuset_count(&t->nodes[i].cpus) * 23 / 24 * ours / all;
		memory += node_memory(&t->nodes[i]) / (uint64_t)all * (uint64_t)ours;
	}
	return vm->vcpus <= cpus && vm->memory_bytes <= memory;
}

static bool pin_names(const struct planner *pl, int node)
{
	const struct vm_config *vm = pl->req->vm;

	for (size_t i = 0; i < vm->n_pin_cpus; i++)
		if (cpuset_has(&pl->req->host->nodes[node].cpus, vm->pin_cpus[i]))
			return true;
	return false;
}

bool planner_takes_bare_node(const struct planner *pl, int node)
{
	if (!planner_node_is_bare(pl, node) || !planner_vm_gpus_on(pl, node))
		return false;
	return pl->req->vm->pin == PIN_LIST ? pin_names(pl, node) : !gpu_nodes_suffice(pl);
}
