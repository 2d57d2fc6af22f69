/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long plan_make() takes, and how that grows with functions, GPUs and CPUs.  docs/BENCH.md says how to read it.
 *
 * How it works: all machines are generated first.  Then the cases are measured in turn, round after round, so that what
 * else the computer does meets all of them; the median of a case's rounds counts.  `slope` is that of the last step.
 * For each series the exponent is the slope of a straight line through (log size, log time), by least squares. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "tests/fake/fakeqemu.h"
#include "tests/fake/genhost.h"

#define ROUNDS    21
#define SAMPLE_NS 2000000 /* a sample is as many plans as take at least that long: the clock is finer by far */
#define SEED      7
#define GOAL_MS   5.0

enum series { GOAL, FUNCTIONS, GPUS, CPUS, N_SERIES };
static const char *const series_words[N_SERIES] = { "goal", "functions", "gpus", "cpus" };

struct bench {
	enum series series;
	int size; /* along the series */
	struct genhost_shape shape;
	struct topology host;
	struct vm_config vm;
	double ms[ROUNDS];
	double median;
};

struct suite {
	struct bench *v;
	size_t n;
};

static void die(const char *what, const struct problems *ps)
{
	fprintf(stderr, "bench_plan: %s\n", what);
	problems_print(ps, stderr);
	exit(1);
}

static int plan_once(const struct bench *b, struct problems *ps)
{
	struct qemu_info q = fake_qemu("10.0");
	struct host_use use = { 0 };
	struct plan_request req = { .vm = &b->vm,
				    .host = &b->host,
				    .use = &use,
				    .qemu = &q,
				    .rundir = "/run/gpuvm/b",
				    .statedir = "/var/lib/gpuvm" };
	struct plan p = { 0 };
	int r = plan_make(&req, &p, ps);

	plan_clear(&p);
	return r;
}

/* Half of the GPUs with what is near to them. */
static void add_bench(struct suite *s, enum series series, int size, int gpus, int functions, int cpus)
{
	struct bench *b = PUSH_ZEROED(s->v, s->n);
	AUTO_FREE char *text = xasprintf("[vm]\nname = b\n[place]\ngpus = %d\n[memory]\nhugepages = off\nsize = 2G\n",
					 gpus > 1 ? gpus / 2 : 1);
	struct problems ps = { 0 };

	b->series = series;
	b->size = size;
	b->shape = (struct genhost_shape){
		.sockets = 2, .nodes_per_socket = 2, .cpus = cpus, .gpus = gpus, .functions = functions, .plain = true
	};
	genhost_make(SEED, &b->shape, &b->host);
	if ((int)b->host.n_funcs != functions || (int)b->host.n_cpus != cpus || topology_n_gpus(&b->host) != gpus)
		die("the machine is not as asked for", &ps);
	if (config_parse("b.ini", text, strlen(text), NULL, &b->vm, &ps) < 0 || plan_once(b, &ps) < 0)
		die("the machine cannot be planned", &ps);
}

static double now_ns(void)
{
	struct timespec ts;

	/* Planning only computes: the CPU time is what it takes, also on a computer that does other things. */
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double sample_ms(const struct bench *b)
{
	struct problems ps = { 0 };
	double start = now_ns(), ns;
	int n = 0;

	do {
		plan_once(b, &ps);
		n++;
		ns = now_ns() - start;
	} while (ns < SAMPLE_NS);
	return ns / n / 1e6;
}

static int double_cmp(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(struct suite *s)
{
	for (int round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < s->n; i++)
			s->v[i].ms[round] = sample_ms(&s->v[i]);
	for (size_t i = 0; i < s->n; i++) {
		qsort(s->v[i].ms, ROUNDS, sizeof(double), double_cmp);
		s->v[i].median = s->v[i].ms[ROUNDS / 2];
	}
}

/* Slope of log(time) over log(size): 1 is linear. */
static double exponent(const struct suite *s, enum series series)
{
	double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;

	for (size_t i = 0; i < s->n; i++) {
		double x = log(s->v[i].size), y = log(s->v[i].median);

		if (s->v[i].series != series)
			continue;
		n++;
		sx += x;
		sy += y;
		sxx += x * x;
		sxy += x * y;
	}
	return (n * sxy - sx * sy) / (n * sxx - sx * sx);
}

static void print_text(const struct suite *s)
{
	printf("%-10s %6s %6s %10s %6s %10s %10s %8s\n", "series", "size", "gpus", "functions", "cpus", "ms", "fastest",
	       "slope");
	for (size_t i = 0; i < s->n; i++) {
		const struct bench *b = &s->v[i];

		printf("%-10s %6d %6d %10d %6d %10.3f %10.3f", series_words[b->series], b->size, b->shape.gpus,
		       b->shape.functions, b->shape.cpus, b->median, b->ms[0]);
		if (i && s->v[i - 1].series == b->series)
			printf(" %8.2f", log2(b->median / s->v[i - 1].median));
		putchar('\n');
	}
	for (enum series k = FUNCTIONS; k < N_SERIES; k++)
		printf("time grows with %s to the power of %.2f\n", series_words[k], exponent(s, k));
	printf("goal: 16 GPUs, 4096 functions, 512 CPUs in %.1f ms: %.3f ms, %s\n", GOAL_MS, s->v[0].median,
	       s->v[0].median <= GOAL_MS ? "met" : "MISSED");
}

static void print_json(const struct suite *s)
{
	printf("{\"schema\":1,\"rounds\":%d,\"goal_ms\":%.1f,\"plan_ms\":%.4f,\"exponents\":{", ROUNDS, GOAL_MS,
	       s->v[0].median);
	for (enum series k = FUNCTIONS; k < N_SERIES; k++)
		printf("%s\"%s\":%.3f", k == FUNCTIONS ? "" : ",", series_words[k], exponent(s, k));
	printf("},\"cases\":[");
	for (size_t i = 0; i < s->n; i++) {
		const struct bench *b = &s->v[i];

		printf("%s{\"series\":\"%s\",\"size\":%d,\"gpus\":%d,\"functions\":%d,\"cpus\":%d,\"median_ms\":%.4f,"
		       "\"min_ms\":%.4f}",
		       i ? "," : "", series_words[b->series], b->size, b->shape.gpus, b->shape.functions, b->shape.cpus,
		       b->median, b->ms[0]);
	}
	printf("]}\n");
}

int main(int argc, char **argv)
{
	bool json = argc == 2 && strcmp(argv[1], "--json") == 0;
	struct suite s = { 0 };

	if (argc > 1 && !json) {
		fprintf(stderr, "usage: bench_plan [--json]\n");
		return 2;
	}
	add_bench(&s, GOAL, 0, 16, 4096, 512);
	for (int n = 256; n <= 8192; n *= 2)
		add_bench(&s, FUNCTIONS, n, 16, n, 512);
	for (int n = 1; n <= 64; n *= 2)
		add_bench(&s, GPUS, n, n, 1024, 512);
	for (int n = 64; n <= 2048; n *= 2)
		add_bench(&s, CPUS, n, 16, 1024, n);
	measure(&s);
	if (json)
		print_json(&s);
	else
		print_text(&s);
	for (size_t i = 0; i < s.n; i++) {
		topology_clear(&s.v[i].host);
		config_clear(&s.v[i].vm);
	}
	free(s.v);
	return 0;
}
