/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP by hand: words, help and completion, and the shell itself on a terminal with a real QEMU. */
#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "gpuvm/parse.h"
#include "gpuvm/qmp_schema.h"
#include "gpuvm/qmp_words.h"

/* --- words ------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *line, *command, *arguments; /* arguments "": none */
} lines[] = {
	{ "query-status", "query-status", "" },
	{ "  query-status\t\r\n", "query-status", "" },
	{ "", NULL, "" },
	{ "   ", NULL, "" },
	{ "# stop", NULL, "" },
	{ "qom-get path=/machine property=type", "qom-get", "{\"path\":\"/machine\",\"property\":\"type\"}" },
	{ "x a=1 b=-2 c=1.5 d=true e=false f=null", "x", "{\"a\":1,\"b\":-2,\"c\":1.5,\"d\":true,\"e\":false,\"f\":null}" },
	{ "x a=007 b=1x c=0x10 d=yes e=True f=+1 g=.5 h=1e3", "x",
	  "{\"a\":\"007\",\"b\":\"1x\",\"c\":\"0x10\",\"d\":\"yes\",\"e\":\"True\",\"f\":\"+1\",\"g\":\".5\",\"h\":1e3}" },
	{ "x a= b==c", "x", "{\"a\":\"\",\"b\":\"=c\"}" },
	{ "x a='\"5\"' b=\"two words\" c=\\ d", "x", "{\"a\":\"5\",\"b\":\"two words\",\"c\":\" d\"}" },
	{ "x a={\"b\": [1, \"} ]\"], \"c\": \"\\\"\"} d=[1, 2]", "x", "{\"a\":{\"b\":[1,\"} ]\"],\"c\":\"\\\"\"},\"d\":[1,2]}" },
	{ "x {\"a\": {\"b\": 1}}", "x", "{\"a\":{\"b\":1}}" },
	{ "x a.b=1 a.c.d=2 e=3", "x", "{\"a\":{\"b\":1,\"c\":{\"d\":2}},\"e\":3}" },
	{ "x bus=0000:17:00.0 file=/a,b", "x", "{\"bus\":\"0000:17:00.0\",\"file\":\"/a,b\"}" },
	{ "x a=NaN b=Infinity c=nul d=truely", "x", "{\"a\":\"NaN\",\"b\":\"Infinity\",\"c\":\"nul\",\"d\":\"truely\"}" },
	{ "{\"execute\": \"stop\"}", "stop", "" },
	{ " {\"execute\": \"x\", \"arguments\": {\"a\": 1}, \"id\": 7}", "x", "{\"a\":1}" },
};

Test(qmp_words, lines)
{
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		AUTO_FREE char *command = NULL;
		struct json_object *args = NULL;
		struct err e = { 0 };
		const char *text;

		cr_assert(qmp_words_line(lines[i].line, &command, &args, &e) == 0, "%s: %s", lines[i].line, e.msg);
		cr_expect_str_eq(command ? command : "", lines[i].command ? lines[i].command : "", "%s: %s", lines[i].line, command);
		text = args ? json_object_to_json_string_ext(args, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE) : "";
		cr_expect_str_eq(text, lines[i].arguments, "%s: %s", lines[i].line, text);
		json_object_put(args);
	}
}

static const struct {
	const char *line, *says;
} bad_lines[] = {
	{ "x y", "'y' is not NAME=VALUE" },
	{ "x =1", "'=1' is not NAME=VALUE" },
	{ "x a=1 a=2", "'a' is given already" },
	{ "x a=1 a.b=2", "'a.b' is given already" },
	{ "x a.b=2 a=1", "'a' is given already" },
	{ "x a=null a=1", "'a' is given already" },
	{ "x a={1}", "the value is not JSON" },
	{ "x a=[1,]", "the value is not JSON" },
	{ "x {\"a\":}", "not a JSON object" },
	{ "x {\"a\":1} b=2", "'{\"a\":1}' is not NAME=VALUE" },
	{ "x 'a", "opened and never closed" },
	{ "x a={\"b\": \"}", "opened and never closed" },
	{ "{\"a\": 1}", "has no \"execute\"" },
	{ "{\"execute\": 1}", "has no \"execute\"" },
	{ "{x}", "not a JSON message" },
};

Test(qmp_words, wrong_lines)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_lines); i++) {
		AUTO_FREE char *command = NULL;
		struct json_object *args = NULL;
		struct err e = { 0 };

		cr_assert(qmp_words_line(bad_lines[i].line, &command, &args, &e) == -EINVAL, "%s", bad_lines[i].line);
		cr_expect(strstr(e.msg, bad_lines[i].says), "%s: %s", bad_lines[i].line, e.msg);
		cr_expect(!command && !args);
	}
}

/* --- help and completion -------------------------------------------------------------------------------------------------- */

/* As QEMU writes it: types have numbers, built-in ones names. */
static const char schema_text[] =
	"[{\"name\":\"query-status\",\"meta-type\":\"command\",\"arg-type\":\"0\",\"ret-type\":\"1\"},"
	"{\"name\":\"query-stats\",\"meta-type\":\"command\",\"arg-type\":\"0\",\"ret-type\":\"[2]\"},"
	"{\"name\":\"qom-get\",\"meta-type\":\"command\",\"arg-type\":\"3\",\"ret-type\":\"any\"},"
	"{\"name\":\"blockdev-add\",\"meta-type\":\"command\",\"arg-type\":\"4\",\"ret-type\":\"0\"},"
	"{\"name\":\"STOP\",\"meta-type\":\"event\",\"arg-type\":\"0\"},"
	"{\"name\":\"0\",\"meta-type\":\"object\",\"members\":[]},"
	"{\"name\":\"1\",\"meta-type\":\"object\",\"members\":[{\"name\":\"running\",\"type\":\"bool\"},{\"name\":\"status\",\"type\":\"2\"}]},"
	"{\"name\":\"2\",\"meta-type\":\"enum\",\"values\":[\"running\",\"paused\"]},"
	"{\"name\":\"[2]\",\"meta-type\":\"array\",\"element-type\":\"2\"},"
	"{\"name\":\"3\",\"meta-type\":\"object\",\"members\":[{\"name\":\"path\",\"type\":\"str\"},"
	"{\"name\":\"property\",\"type\":\"str\",\"default\":null}]},"
	"{\"name\":\"4\",\"meta-type\":\"object\",\"tag\":\"driver\",\"members\":[{\"name\":\"driver\",\"type\":\"5\"},{\"name\":\"read-only\","
	"\"type\":\"bool\",\"default\":null}],\"variants\":[{\"case\":\"file\",\"type\":\"6\"},{\"case\":\"raw\",\"type\":\"7\"}]},"
	"{\"name\":\"5\",\"meta-type\":\"enum\",\"values\":[\"file\",\"raw\"]},"
	"{\"name\":\"6\",\"meta-type\":\"object\",\"members\":[{\"name\":\"filename\",\"type\":\"str\"},{\"name\":\"locking\",\"type\":\"8\"}]},"
	"{\"name\":\"7\",\"meta-type\":\"object\",\"members\":[{\"name\":\"file\",\"type\":\"9\"}]},"
	"{\"name\":\"8\",\"meta-type\":\"enum\",\"values\":[\"auto\",\"off\",\"on\"]},"
	"{\"name\":\"9\",\"meta-type\":\"alternate\",\"members\":[{\"type\":\"4\"},{\"type\":\"str\"}]},"
	"{\"name\":\"str\",\"meta-type\":\"builtin\",\"json-type\":\"string\"},"
	"{\"name\":\"bool\",\"meta-type\":\"builtin\",\"json-type\":\"boolean\"},"
	"{\"name\":\"any\",\"meta-type\":\"builtin\",\"json-type\":\"value\"}]";

static void open_schema(struct qmp_schema *s)
{
	struct json_object *reply = json_tokener_parse(schema_text);
	struct err e = { 0 };

	cr_assert(reply);
	cr_assert(qmp_schema_init(reply, s, &e) == 0, "%s", e.msg);
	json_object_put(reply);
}

static const struct {
	const char *before, *word, *want;
} completions[] = {
	{ "", "", "blockdev-add qom-get query-stats query-status" },
	{ "", "query-sta", "query-stats query-status" },
	{ "  ", "q", "qom-get query-stats query-status" },
	{ "", "x", "" },
	{ "help ", "qo", "qom-get" },
	{ "qom-get ", "", "path= property=" },
	{ "qom-get ", "pa", "path=" },
	{ "qom-get path=/x ", "", "property=" },
	{ "qom-get path=", "", "" },
	{ "query-status ", "", "" },
	{ "no-such ", "", "" },
	{ "STOP ", "", "" },
	{ "blockdev-add ", "", "driver= read-only=" },
	{ "blockdev-add driver=", "", "file raw" },
	{ "blockdev-add driver=", "r", "raw" },
	{ "blockdev-add driver=file ", "", "filename= locking= read-only=" },
	{ "blockdev-add driver=raw ", "f", "file=" },
	{ "blockdev-add driver=file locking=", "o", "off on" },
	{ "blockdev-add read-only=", "", "false true" },
	{ "qom-get 'path=", "", "" },
	{ "x a={", "", "" },
};

Test(qmp_schema, completion)
{
	struct qmp_schema s;

	open_schema(&s);
	for (size_t i = 0; i < ARRAY_SIZE(completions); i++) {
		AUTO_FREE char *got = xstrdup("");
		struct strv v = { 0 };

		qmp_schema_complete(&s, completions[i].before, completions[i].word, &v);
		for (size_t k = 0; k < v.n; k++) {
			AUTO_FREE char *before = got;

			got = xasprintf("%s%s%s", before, k ? " " : "", v.v[k]);
		}
		cr_expect_str_eq(got, completions[i].want, "'%s' '%s': %s", completions[i].before, completions[i].word, got);
		strv_clear(&v);
	}
	qmp_schema_clear(&s);
}

Test(qmp_schema, help)
{
	struct qmp_schema s;
	AUTO_FREE char *get = NULL, *add = NULL, *status = NULL;

	open_schema(&s);
	get = qmp_schema_help(&s, "qom-get");
	cr_expect_str_eq(get, "qom-get\n    path                   string\n    property               string (optional)\n  returns value\n", "%s", get);
	add = qmp_schema_help(&s, "blockdev-add");
	cr_expect_str_eq(add, "blockdev-add\n    driver                 file|raw\n    read-only              boolean (optional)\n"
			      "    ...                    more, by driver (completion knows them)\n  returns {}\n", "%s", add);
	status = qmp_schema_help(&s, "query-status");
	cr_expect_str_eq(status, "query-status\n  returns {running: boolean, status: running|paused}\n", "%s", status);
	cr_expect(!qmp_schema_help(&s, "STOP"));
	cr_expect(!qmp_schema_help(&s, "no-such"));
	qmp_schema_clear(&s);
}

/* What is not a schema is refused; what is odd within one is passed over. */
Test(qmp_schema, odd_replies)
{
	static const char *const bad[] = { "{}", "[]", "[1]", "[{\"name\":1}]", "\"x\"" };
	struct json_object *o = json_tokener_parse("[{\"name\":\"a\",\"meta-type\":\"command\",\"arg-type\":7,\"ret-type\":\"nowhere\"},"
						   "{\"name\":\"b\",\"meta-type\":\"command\",\"arg-type\":\"c\"},{\"name\":\"c\",\"members\":[1,{}]}]");
	struct qmp_schema s;
	struct err e = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct json_object *reply = json_tokener_parse(bad[i]);

		cr_expect(qmp_schema_init(reply, &s, &e) == -EPROTO, "%s", bad[i]);
		json_object_put(reply);
	}
	cr_assert(qmp_schema_init(o, &s, &e) == 0);
	for (int i = 0; i < 2; i++) {
		AUTO_FREE char *text = qmp_schema_help(&s, i ? "b" : "a");
		struct strv v = { 0 };

		cr_expect(text && strstr(text, "returns ?"), "%s", text);
		qmp_schema_complete(&s, i ? "b " : "a ", "", &v);
		strv_clear(&v);
	}
	qmp_schema_clear(&s);
	json_object_put(o);
}

/* --- on a terminal ---------------------------------------------------------------------------------------------------------- */

#define WAIT_MS 30000

static const char *build_dir(void)
{
	const char *dir = getenv("GPUVM_BUILD");

	return dir ? dir : "build";
}

struct session {
	char root[64];
	pid_t pid;
	int tty;
	char *seen; /* what was printed and not yet expected */
	size_t len;
};

static int run(const struct session *s, const char *fmt, ...) PRINTF(2, 3);
static int run(const struct session *s, const char *fmt, ...)
{
	char *command = NULL;
	va_list ap;
	int status;

	va_start(ap, fmt);
	cr_assert(vasprintf(&command, fmt, ap) >= 0);
	va_end(ap);
	{
		AUTO_FREE char *line = xasprintf("R='%s' L='%s/gpuvm-launch' G='%s/gpuvm'; %s", s->root, build_dir(), build_dir(), command);

		status = system(line);
	}
	free(command);
	cr_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void session_start(struct session *s)
{
	*s = (struct session){ .root = "/tmp/gpuvm-shell-XXXXXX", .tty = -1 };
	/* As /run/gpuvm: QEMU's user goes through it. */
	cr_assert(mkdtemp(s->root) && chmod(s->root, 0755) == 0);
	setenv("GPUVM_RUNDIR", s->root, 1);
	setenv("GPUVM_STATEDIR", s->root, 1);
	setenv("XDG_STATE_HOME", s->root, 1);
	setenv("TERM", "dumb", 1);
	setenv("INPUTRC", "/dev/null", 1);
	cr_assert(run(s, "$L -q -d --set vm.accel=tcg --set lifecycle.stop-timeout=500ms conf/demo.ini") == 0);
}

static void session_shell(struct session *s)
{
	AUTO_FREE char *program = xasprintf("%s/gpuvm", build_dir());
	struct winsize size = { .ws_row = 40, .ws_col = 200 };

	s->len = 0;
	s->pid = forkpty(&s->tty, NULL, NULL, &size);
	cr_assert(s->pid >= 0);
	if (s->pid == 0) {
		execl(program, "gpuvm", "qmp", "demo", NULL);
		_exit(127);
	}
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Wait until @text was printed behind what was expected before; what is behind it is kept. */
static void expect(struct session *s, const char *text)
{
	int64_t deadline = now_ms() + WAIT_MS;

	for (;;) {
		struct pollfd p = { .fd = s->tty, .events = POLLIN };
		char *at = s->len ? memmem(s->seen, s->len, text, strlen(text)) : NULL;
		ssize_t n;

		if (at) {
			size_t used = (size_t)(at - s->seen) + strlen(text);

			memmove(s->seen, s->seen + used, s->len - used);
			s->len -= used;
			return;
		}
		cr_assert(now_ms() < deadline && poll(&p, 1, (int)(deadline - now_ms())) == 1, "no '%s' in:\n%.*s", text, (int)s->len, s->seen);
		s->seen = xrealloc(s->seen, s->len + 65536);
		n = read(s->tty, s->seen + s->len, 65536);
		cr_assert(n > 0, "ended without '%s':\n%.*s", text, (int)s->len, s->seen);
		s->len += (size_t)n;
	}
}

static void keys(const struct session *s, const char *text)
{
	cr_assert(write(s->tty, text, strlen(text)) == (ssize_t)strlen(text));
}

static int session_code(struct session *s)
{
	int status;

	cr_assert(waitpid(s->pid, &status, 0) == s->pid);
	close(s->tty);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void session_end(struct session *s)
{
	cr_expect(run(s, "$G stop demo 2>/dev/null") == 0);
	run(s, "rm -rf \"$R\"");
	free(s->seen);
}

Test(qmp_shell, session, .timeout = 120)
{
	struct session s;
	struct stat st;
	AUTO_FREE char *history = NULL, *text = NULL;

	session_start(&s);
	session_shell(&s);
	expect(&s, "(demo) ");
	keys(&s, "qom-g\tpa\t/machine prop\ttype\r");
	expect(&s, "qom-get path=/machine property=type");
	expect(&s, "-machine\"");
	expect(&s, "(demo) ");
	keys(&s, "no-such-thing\r");
	expect(&s, "error: ");
	expect(&s, "no-such-thing has not been found");
	expect(&s, "(demo) ");
	keys(&s, "qom-get path\r");
	expect(&s, "'path' is not NAME=VALUE");
	keys(&s, "help qom-get\r");
	expect(&s, "returns value");
	expect(&s, "(demo) ");
	/* An event while a line is typed: it goes on behind it. */
	keys(&s, "stop\r");
	expect(&s, "-- STOP");
	expect(&s, "(demo) ");
	keys(&s, "cont\r");
	expect(&s, "-- RESUME");
	expect(&s, "(demo) ");
	keys(&s, "query-na");
	expect(&s, "query-na");
	cr_assert(run(&s, "kill -TERM $(jq .launcher_pid \"$R/demo/claim.json\")") == 0);
	expect(&s, "-- POWERDOWN");
	expect(&s, "(demo) query-na");
	expect(&s, "-- SHUTDOWN");
	expect(&s, "QEMU closed its monitor");
	cr_expect(session_code(&s) == 0);

	history = xasprintf("%s/gpuvm/qmp_history", s.root);
	cr_assert(stat(history, &st) == 0);
	cr_expect((st.st_mode & 0777) == 0600);
	cr_assert(read_text_file(history, 65536, &text) == 0);
	cr_expect_str_eq(text, "qom-get path=/machine property=type\nno-such-thing\nqom-get path\nhelp qom-get\nstop\ncont");
	session_end(&s);
}

Test(qmp_shell, leaving_lets_the_vm_run, .timeout = 120)
{
	struct session s;

	session_start(&s);
	session_shell(&s);
	expect(&s, "(demo) ");
	/* Ctrl-C clears a line, also half a command. */
	keys(&s, "quit");
	expect(&s, "quit");
	keys(&s, "\003");
	expect(&s, "(demo) ");
	keys(&s, "query-name\r");
	expect(&s, "\"name\": \"demo\"");
	expect(&s, "(demo) ");
	keys(&s, "quit\r");
	expect(&s, "Type it again");
	expect(&s, "(demo) ");
	/* Up: the last line but one is in the history. */
	keys(&s, "\020\020\r");
	expect(&s, "\"name\": \"demo\"");
	expect(&s, "(demo) ");
	keys(&s, "\004");
	cr_expect(session_code(&s) == 0);
	cr_expect(run(&s, "$G status demo --json | jq -e '.state == \"running\"' >/dev/null") == 0);

	session_shell(&s);
	expect(&s, "(demo) ");
	keys(&s, "exit\r");
	cr_expect(session_code(&s) == 0);

	/* Asked for twice it is done. */
	session_shell(&s);
	expect(&s, "(demo) ");
	keys(&s, "quit\r");
	expect(&s, "Type it again");
	keys(&s, "quit\r");
	expect(&s, "QEMU closed its monitor");
	cr_expect(session_code(&s) == 0);
	session_end(&s);
}

/* QEMU serves one client at a time on qmp.sock; the supervisor has a monitor of its own, and so have gpuvm's other verbs. */
Test(qmp_shell, one_client_at_a_time, .timeout = 120)
{
	struct session s;

	session_start(&s);
	session_shell(&s);
	expect(&s, "(demo) ");
	cr_expect(run(&s, "$G qmp demo query-status >\"$R/out\" 2>&1") == 1);
	cr_expect(run(&s, "grep -q 'serves one client at a time' \"$R/out\"") == 0);
	/* The supervisor writes the state down when QEMU has told it. */
	cr_expect(run(&s, "$G pause demo && for i in $(seq 200); do $G status --json demo | jq -e '.state == \"paused\"' >\"$R/out\" && break; done && "
			  "$G resume demo && $G verify demo >>\"$R/out\"") == 0);
	/* The supervisor is not a client of it: it stops the VM as ever. */
	cr_expect(run(&s, "timeout 20 $G stop demo") == 0);
	expect(&s, "QEMU closed its monitor");
	cr_expect(session_code(&s) == 0);

	cr_assert(run(&s, "$L -q -d --set vm.accel=tcg --set lifecycle.stop-timeout=500ms conf/demo.ini") == 0);
	session_shell(&s);
	expect(&s, "(demo) ");
	keys(&s, "\004");
	cr_expect(session_code(&s) == 0);
	cr_expect(run(&s, "$G qmp demo query-status | jq -e .running >/dev/null") == 0);
	session_end(&s);
}

Test(qmp_shell, a_command_per_line, .timeout = 120)
{
	struct session s;

	session_start(&s);
	cr_expect(run(&s, "printf 'query-name\\n\\n# nothing\\nqom-get path=/machine property=type\\n{\"execute\":\"query-name\"}' |"
			  "$G qmp demo >\"$R/out\"") == 0);
	cr_expect(run(&s, "test \"$(jq -r 'if type == \"string\" then \"T\" else .name end' \"$R/out\" | tr '\\n' ' ')\" = 'demo T demo '") == 0);
	cr_expect(run(&s, "test \"$(wc -l <\"$R/out\")\" = 3") == 0);
	/* The first error ends it. */
	cr_expect(run(&s, "printf 'query-name\\nno-such\\nstop\\n' | $G qmp demo >\"$R/out\" 2>\"$R/err\"") == 1);
	cr_expect(run(&s, "test \"$(wc -l <\"$R/out\")\" = 1 && grep -q 'line 2: .*no-such' \"$R/err\"") == 0);
	cr_expect(run(&s, "$G qmp demo query-status | jq -e .running >/dev/null") == 0);
	/* In words, as JSON, and wrong. */
	cr_expect(run(&s, "$G qmp demo qom-get path=/machine property=type | grep -q q35") == 0);
	cr_expect(run(&s, "$G qmp demo qom-get path 2>/dev/null") == 2);
	cr_expect(run(&s, "$G qmp no-such-vm query-name 2>/dev/null") == 1);
	session_end(&s);
}
