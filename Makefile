# gpuvm: one non-recursive Makefile.  `make help` lists the targets.
#   make                 build/gpuvm-launch and build/gpuvm
#   make CC=clang        another compiler (its own build folder is wise: make CC=clang B=build/clang)
#   make SAN=1           with AddressSanitizer and UndefinedBehaviorSanitizer, in build/san

PREFIX  ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC := gcc
endif
# make V=1 shows the commands
Q := $(if $(V),,@)
SAN     ?=
B       ?= build$(if $(SAN),/san)
VERSION := 0.1.0

PKGS      := hwloc libpci json-c inih libkmod libsystemd libarchive libgcrypt
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS  := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lnuma
# Of the shell of `gpuvm qmp` alone: the launcher does without.
READLINE_LIBS := -lreadline

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla -Wundef \
	-Wformat=2 -Wpointer-arith -Werror
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack
ifeq ($(SAN),)
OPT := -O2 -g $(HARDEN)
LDOPT := $(LDHARDEN)
else
OPT := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
LDOPT := -fsanitize=address,undefined
endif
CPPFLAGS += -Iinclude -I. -D_GNU_SOURCE -DGPUVM_VERSION='"$(VERSION)"' $(PKG_CFLAGS)
CFLAGS   += -std=gnu17 $(WARN) $(OPT)
LDFLAGS  += $(LDOPT)

MAINS    := src/cmd/main_gpuvm.c src/cmd/main_launch.c
LIB_SRC  := $(filter-out $(MAINS),$(wildcard src/*/*.c))
FAKE_SRC := $(filter-out %_main.c,$(wildcard tests/fake/*.c))
UNIT_SRC := $(wildcard tests/unit/*.c)
obj = $(patsubst %.c,$(B)/%.o,$(1))

LIB := $(B)/libgpuvm.a
PROGRAMS := $(B)/gpuvm-launch $(B)/gpuvm

.PHONY: all check check-san faults lint lab boots demo bench install uninstall clean help fuzz example mans
.DELETE_ON_ERROR:

all: $(PROGRAMS)

help:
	@echo "all        the two programs in $(B)/"
	@echo "check      unit, golden and real-QEMU tests"
	@echo "check-san  the same under ASan and UBSan; leaks fail"
	@echo "faults     launcher and QEMU killed at every moment, every call failing once"
	@echo "lint       compiler warnings of the other compiler, cppcheck, shellcheck, codespell, include arrows"
	@echo "boots      the machines of tests/fixtures, started with stand-ins under SeaBIOS and OVMF (CASE=name for one)"
	@echo "lab        the emulated GPU server: every scenario (SCENARIO=name for one)"
	@echo "demo       the main job in the emulated server, to look at"
	@echo "bench      figures, as ratios against a peer in the same run"
	@echo "install    to PREFIX=$(PREFIX), below DESTDIR"
	@echo "uninstall, clean"

$(LIB): $(call obj,$(LIB_SRC))
	@rm -f $@
	@$(AR) rcs $@ $^

$(B)/gpuvm-launch: $(call obj,src/cmd/main_launch.c) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
$(B)/gpuvm: $(call obj,src/cmd/main_gpuvm.c) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) $(READLINE_LIBS)

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@$(if $(V),,echo "  CC    $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# --- tests ---------------------------------------------------------------------------------------

$(B)/tests/unit_tests: $(call obj,$(UNIT_SRC) $(FAKE_SRC)) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcriterion
# SIGKILL and failing calls at every moment: minutes, so not with the others.
$(B)/tests/fault_tests: $(call obj,$(wildcard tests/faults/*.c) $(FAKE_SRC)) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcriterion
faults: all $(B)/tests/fault_tests
	GPUVM_BUILD=$(abspath $(B)) $(B)/tests/fault_tests $(CHECK_ARGS)
$(B)/tests/mkhost: $(call obj,tests/fake/mkhost_main.c $(FAKE_SRC)) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
$(B)/tools/mkexample: $(call obj,tools/mkexample.c) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

# A leak that LeakSanitizer finds when a Criterion worker exits does not fail the run: reports go to files, and the files
# decide, not exit codes (exitcode=0: Criterion's runner leaks itself, see tools/san-reports).
check: all $(B)/tests/unit_tests
	@rm -f $(B)/tests/san.*
	ASAN_OPTIONS=log_path=$(abspath $(B))/tests/san:exitcode=0 UBSAN_OPTIONS=log_path=$(abspath $(B))/tests/san:print_stacktrace=1 \
	GPUVM_BUILD=$(abspath $(B)) $(B)/tests/unit_tests $(CHECK_ARGS)
	@tools/san-reports $(B)/tests/san

check-san:
	$(MAKE) SAN=1 check

# The commented example is made from the key table.
example: $(B)/tools/mkexample
	$< >conf/gpuvm.ini.example

# Fuzzers (clang, libFuzzer): make fuzz FUZZ_SECONDS=600
FUZZ_SECONDS ?= 60
FUZZ_FLAGS := -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

build/fuzz/%: tests/fuzz/fuzz_%.c $(LIB_SRC)
	@mkdir -p $(@D)
	$(Q)clang $(CPPFLAGS) -std=gnu17 $(FUZZ_FLAGS) -o $@ $^ $(PKG_LIBS) $(READLINE_LIBS)
fuzz: $(addprefix build/fuzz/,$(FUZZERS))
	@set -e; for f in $(FUZZERS); do mkdir -p build/fuzz/new/$$f; \
	  build/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 build/fuzz/new/$$f tests/fuzz/corpus/$$f; done

# --- figures ---------------------------------------------------------------------------------------

$(B)/tests/bench_plan: $(call obj,tests/bench/bench_plan.c $(FAKE_SRC)) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm

# make bench BENCH_ARGS=--json
bench: $(B)/tests/bench_plan
	@$< $(BENCH_ARGS)

lint:
	tools/lint

boots: all $(B)/tests/mkhost
	tests/boot/run -b $(B) $(CASE)

lab: all
	tests/lab/run $(SCENARIO)

demo:
	tools/demo

# --- installation ----------------------------------------------------------------------------------

MAN_SRC := $(wildcard docs/man/*.scd)
MANS    := $(patsubst docs/man/%.scd,build/man/%,$(MAN_SRC))
build/man/%: docs/man/%.scd
	@mkdir -p $(@D)
	$(Q)scdoc <$< >$@

mans: $(MANS)
man_section = $(subst .,,$(suffix $(1)))

install: all mans
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/doc/gpuvm/examples
	install $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 README.md LICENSE docs/*.md $(DESTDIR)$(PREFIX)/share/doc/gpuvm
	install -m 644 $(filter-out conf/systemd conf/completions,$(wildcard conf/*)) $(DESTDIR)$(PREFIX)/share/doc/gpuvm/examples
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/tmpfiles.d $(DESTDIR)$(PREFIX)/lib/sysusers.d
	sed 's|@bindir@|$(PREFIX)/bin|' conf/systemd/gpuvm@.service.in >$(DESTDIR)$(PREFIX)/lib/systemd/system/gpuvm@.service
	install -m 644 conf/systemd/gpuvm.target $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -m 644 conf/systemd/gpuvm.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/gpuvm.conf
	install -m 644 conf/systemd/gpuvm.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/gpuvm.conf
	install -D -m 644 conf/completions/gpuvm.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gpuvm
	ln -sf gpuvm $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gpuvm-launch
	install -D -m 644 conf/completions/_gpuvm $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gpuvm
	$(foreach m,$(MANS),install -D -m 644 $(m) $(DESTDIR)$(PREFIX)/share/man/man$(call man_section,$(m))/$(notdir $(m)) && ) true

uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(notdir $(PROGRAMS)))
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/gpuvm
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/lib/,systemd/system/gpuvm@.service systemd/system/gpuvm.target tmpfiles.d/gpuvm.conf sysusers.d/gpuvm.conf)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions/gpuvm bash-completion/completions/gpuvm-launch zsh/site-functions/_gpuvm)
	$(foreach m,$(MANS),rm -f $(DESTDIR)$(PREFIX)/share/man/man$(call man_section,$(m))/$(notdir $(m)) && ) true

clean:
	rm -rf build

-include $(shell find $(B) -type f -name '*.d' 2>/dev/null)
