/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qmp_shell.c - QMP by hand.
 *
 * How it works: one loop waits for the keyboard, the monitor and signals, whichever comes.  Readline is fed a character at a time and
 * calls back with a whole line.  While a command runs there is no prompt: its reply, events and Ctrl-C (which gives the reply up) are
 * waited for.  Events take the line being typed away, are printed, and it is drawn again below. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include <readline/history.h>
#include <readline/readline.h>

#include "cmd.h"
#include "gpuvm/log.h"
#include "gpuvm/qmp_schema.h"
#include "gpuvm/qmp_words.h"
#include "qmp_shell.h"

#define SEND_TIMEOUT_MS 10000
#define HISTORY_MAX	1000

/* Readline's callbacks take no context. */
static struct shell {
	struct qmp *q;
	struct qmp_schema schema;
	struct strv offers; /* of the completion that goes on */
	size_t next_offer;
	char *history, *prompt;
	uint64_t id; /* of the command that runs */
	bool waiting, quit_asked, end;
	int code;
} sh;

/* --- history ------------------------------------------------------------------------------------------------------------ */

/* Make the folders of @path, as far as they are missing; what cannot be made shows when the file is opened. */
static void make_parents(const char *path)
{
	AUTO_FREE char *dir = xstrdup(path);

	for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(dir, 0700);
		*slash = '/';
	}
}

/* Without a place to keep it there is a history for this session only. */
static void open_history(void)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	AUTO_CLOSE int fd = -1;

	if (state && *state == '/')
		sh.history = xasprintf("%s/gpuvm/qmp_history", state);
	else if (home && *home == '/')
		sh.history = xasprintf("%s/.local/state/gpuvm/qmp_history", home);
	using_history();
	stifle_history(HISTORY_MAX);
	if (!sh.history)
		return;
	make_parents(sh.history);
	/* Commands may have passwords in them (set_password): nobody else may read it. */
	fd = open(sh.history, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || read_history(sh.history) != 0) {
		log_debug("no history: '%s': %s", sh.history, strerror(errno));
		free(STEAL_PTR(sh.history));
	}
}

static void remember(const char *line)
{
	HIST_ENTRY *last = history_length ? history_get(history_base + history_length - 1) : NULL;

	if (last && strcmp(last->line, line) == 0)
		return;
	add_history(line);
	if (sh.history && append_history(1, sh.history) != 0)
		log_debug("history: '%s': %s", sh.history, strerror(errno));
}

/* --- output -------------------------------------------------------------------------------------------------------------- */

static void print_json(struct json_object *o)
{
	if (json_object_is_type(o, json_type_object) && !json_object_object_length(o)) {
		puts("{}");
		return;
	}
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
}

/* "-- STOP", "-- SHUTDOWN {"guest":true,...}" */
static void print_event(struct json_object *event)
{
	struct json_object *name = NULL, *data = NULL;

	json_object_object_get_ex(event, "event", &name);
	printf("-- %s", json_object_get_string(name));
	if (json_object_object_get_ex(event, "data", &data) && json_object_object_length(data))
		printf(" %s", json_object_to_json_string_ext(data, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	putchar('\n');
}

static void print_events(void)
{
	struct json_object *event = qmp_next_event(sh.q);

	if (!event)
		return;
	if (!sh.waiting)
		rl_clear_visible_line();
	for (; event; event = qmp_next_event(sh.q)) {
		print_event(event);
		json_object_put(event);
	}
	fflush(stdout);
	if (!sh.waiting) {
		rl_on_new_line();
		rl_redisplay();
	}
}

/* --- commands ------------------------------------------------------------------------------------------------------------- */

static void on_line(char *line);

static void show_prompt(void)
{
	sh.waiting = false;
	rl_callback_handler_install(sh.prompt, on_line);
}

/* While a command runs the terminal is as it was, so that its keys (Ctrl-Z) work. */
static void hide_prompt(void)
{
	rl_callback_handler_remove();
	sh.waiting = true;
}

static void print_help(const char *line)
{
	const char *word = line + strspn(line, " ") + 4;
	AUTO_FREE char *command = NULL, *text = NULL;
	struct strv commands = { 0 };

	word += strspn(word, " ");
	command = xstrndup(word, strcspn(word, " "));
	text = *command ? qmp_schema_help(&sh.schema, command) : NULL;
	if (text) {
		fputs(text, stdout);
	} else if (*command) {
		printf("QEMU has no command '%s'; `help` lists them\n", command);
	} else {
		qmp_schema_commands(&sh.schema, &commands);
		for (size_t i = 0; i < commands.n; i++)
			printf("%s\n", commands.v[i]);
		puts("\nCOMMAND NAME=VALUE... or COMMAND {JSON}; `help COMMAND` shows its arguments. Tab completes. Ctrl-C clears the line,\n"
		     "Ctrl-D leaves and lets the VM run.");
	}
	strv_clear(&commands);
}

/* Who types "quit" mostly wants to leave, and not to end the VM. */
static bool is_asked_first(const char *command)
{
	bool first = strcmp(command, "quit") == 0 && !sh.quit_asked;

	sh.quit_asked = first;
	if (first)
		puts("`quit` ends the VM at once. Type it again to do so; Ctrl-D or `exit` leaves this shell.");
	return first;
}

static void run_line(const char *line)
{
	AUTO_FREE char *command = NULL;
	struct json_object *args = NULL;
	struct err e = { 0 };
	int r = qmp_words_line(line, &command, &args, &e);

	if (r == 0 && command && !is_asked_first(command)) {
		r = qmp_send(sh.q, command, STEAL_PTR(args), SEND_TIMEOUT_MS, &sh.id, &e);
		if (r == 0)
			hide_prompt();
	}
	json_object_put(args);
	if (r < 0)
		printf("error: %s\n", e.msg);
}

static bool is_word(const char *line, const char *word)
{
	size_t len = strlen(word);

	line += strspn(line, " ");
	return strncmp(line, word, len) == 0 && (line[len] == '\0' || line[len] == ' ');
}

/* Readline has a whole line; NULL is Ctrl-D. The text is ours. */
static void on_line(char *line)
{
	if (!line || is_word(line, "exit")) {
		sh.end = true;
		/* Else it would draw the prompt once more. */
		rl_callback_handler_remove();
		if (!line)
			putchar('\n');
	} else if (line[strspn(line, " ")]) {
		remember(line);
		if (is_word(line, "help"))
			print_help(line);
		else
			run_line(line);
	}
	free(line);
}

/* --- completion ------------------------------------------------------------------------------------------------------------ */

static char *next_offer(const char *word, int state)
{
	(void)word;
	if (state == 0)
		sh.next_offer = 0;
	return sh.next_offer < sh.offers.n ? strdup(sh.offers.v[sh.next_offer++]) : NULL;
}

static char **complete(const char *word, int start, int end)
{
	AUTO_FREE char *before = xstrndup(rl_line_buffer, (size_t)start);

	(void)end;
	strv_clear(&sh.offers);
	qmp_schema_complete(&sh.schema, before, word, &sh.offers);
	rl_attempted_completion_over = 1; /* no names of files instead */
	/* "path=" is to be followed by its value. */
	rl_completion_append_character = sh.offers.n && sh.offers.v[0][strlen(sh.offers.v[0]) - 1] == '=' ? '\0' : ' ';
	return rl_completion_matches(word, next_offer);
}

static void set_up_readline(void)
{
	rl_readline_name = "gpuvm";
	rl_attempted_completion_function = complete;
	rl_completer_word_break_characters = " \t=";
	rl_basic_word_break_characters = " \t=";
	rl_completer_quote_characters = "";
	rl_catch_signals = 0; /* they come through the signalfd; only a new size of the window is readline's own */
}

/* --- the loop ---------------------------------------------------------------------------------------------------------------- */

static void take_reply(void)
{
	struct json_object *ret = NULL;
	struct err e = { 0 };
	int r = sh.waiting ? qmp_take_reply(sh.q, sh.id, &ret, &e) : -EAGAIN;

	if (r == -EAGAIN)
		return;
	if (r == 0)
		print_json(ret);
	else
		printf("error: %s\n", e.msg);
	json_object_put(ret);
	show_prompt();
}

static void on_monitor(void)
{
	struct err e = { 0 };
	int r = qmp_read(sh.q, &e);

	print_events();
	take_reply();
	if (r == 0)
		return;
	if (!sh.waiting)
		rl_callback_handler_remove();
	printf("%s%s\n", sh.waiting ? "" : "\n", e.msg);
	sh.end = true;
	/* The end of the VM is not an error of the shell: it may have been what was asked for. */
	sh.code = r == -ECONNRESET ? EXIT_DONE : EXIT_FAILED;
}

/* Ctrl-C */
static void on_interrupt(void)
{
	sh.quit_asked = false;
	if (sh.waiting) {
		puts("the reply is not waited for");
		show_prompt();
		return;
	}
	rl_free_line_state();
	rl_callback_sigcleanup();
	rl_replace_line("", 0);
	rl_crlf();
	rl_on_new_line();
	rl_redisplay();
}

/* Ctrl-Z: the shell that we are in gets the terminal as it was, and the line is drawn again when we are back. */
static void on_suspend(void)
{
	if (!sh.waiting)
		rl_deprep_terminal();
	raise(SIGSTOP);
	if (sh.waiting)
		return;
	rl_prep_terminal(1);
	rl_on_new_line();
	rl_redisplay();
}

static void on_signal(int fd)
{
	struct signalfd_siginfo si;

	if (read(fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGINT) {
		on_interrupt();
	} else if (si.ssi_signo == SIGTSTP) {
		on_suspend();
	} else {
		if (!sh.waiting)
			rl_callback_handler_remove();
		sh.end = true;
		sh.code = EXIT_FAILED;
	}
}

static void loop(int signal_fd)
{
	while (!sh.end) {
		struct pollfd p[] = { { .fd = sh.waiting ? -1 : STDIN_FILENO, .events = POLLIN },
				      { .fd = sh.q->fd, .events = POLLIN },
				      { .fd = signal_fd, .events = POLLIN } };

		if (poll(p, ARRAY_SIZE(p), -1) < 0) {
			/* A new size of the window: readline's handler has only taken note of it. */
			rl_check_signals();
			continue;
		}
		if (p[2].revents)
			on_signal(signal_fd);
		if (p[1].revents && !sh.end)
			on_monitor();
		if (p[0].revents && !sh.waiting && !sh.end)
			rl_callback_read_char();
	}
}

static int load_schema(const char *vm, struct err *e)
{
	struct json_object *reply = NULL;
	int r = qmp_command(sh.q, "query-qmp-schema", NULL, SEND_TIMEOUT_MS, &reply, e);

	if (r == 0)
		r = qmp_schema_init(reply, &sh.schema, e);
	json_object_put(reply);
	if (r == 0)
		printf("%s: QEMU %s. `help` lists the commands, Tab completes, Ctrl-D leaves and lets the VM run.\n", vm, sh.q->version);
	return r;
}

static int open_signals(void)
{
	static const int signals[] = { SIGINT, SIGTSTP, SIGTERM, SIGHUP, SIGQUIT };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int qmp_shell(const char *vm, struct qmp *q)
{
	AUTO_CLOSE int signal_fd = -1;
	struct err e = { 0 };

	sh = (struct shell){ .q = q, .code = EXIT_DONE, .prompt = xasprintf("(%s) ", vm) };
	if (load_schema(vm, &e) < 0) {
		log_error("%s", e.msg);
		sh.code = EXIT_FAILED;
	} else {
		signal_fd = open_signals();
		open_history();
		set_up_readline();
		show_prompt();
		print_events();
		loop(signal_fd);
	}
	qmp_schema_clear(&sh.schema);
	strv_clear(&sh.offers);
	free(sh.history);
	free(sh.prompt);
	return sh.code;
}
