/* SPDX-License-Identifier: GPL-2.0-or-later */
/* timings.c - where the time of a start goes. */
#include <stdio.h>
#include <time.h>

#include "gpuvm/launch.h"
#include "gpuvm/log.h"

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void launch_time(struct launch *l, const char *what)
{
	uint64_t now = now_us();

	if (what && l->n_times < ARRAY_SIZE(l->times))
		l->times[l->n_times++] = (struct launch_time){ what, now - l->timed_at };
	l->timed_at = now;
}

static double total_ms(const struct launch *l)
{
	uint64_t us = 0;

	for (size_t i = 0; i < l->n_times; i++)
		us += l->times[i].us;
	return (double)us / 1000;
}

char *launch_times_table(const struct launch *l)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < l->n_times; i++)
		fprintf(f, "%-20s %9.2f ms\n", l->times[i].what, (double)l->times[i].us / 1000);
	fprintf(f, "%-20s %9.2f ms\n", "all", total_ms(l));
	fclose(f);
	return text;
}

void launch_log_times(const struct launch *l)
{
	AUTO_FREE char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	for (size_t i = 0; i < l->n_times; i++)
		fprintf(f, "%s%s %.2f", i ? ", " : "", l->times[i].what, (double)l->times[i].us / 1000);
	fclose(f);
	log_info("%s: started in %.2f ms: %s", l->plan.vm, total_ms(l), text);
}
