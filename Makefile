# gpuvm: one non-recursive Makefile.  `make help` lists the targets.
#   make                 build/gpuvm-launch and build/gpuvm
#   make CC=clang        another compiler (its own build folder is wise: make CC=clang B=build/clang)
#   make SAN=1           with AddressSanitizer and UndefinedBehaviorSanitizer, in build/san
#   make FUZZ=1 CC=clang fuzzers: for libFuzzer and coverage, too, in build/fuzz (tools/fuzz does it)

PREFIX  ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC := gcc
endif
# make V=1 shows the commands
Q := $(if $(V),,@)
SAN     ?=
FUZZ    ?=
B       ?= build$(if $(SAN),/san)$(if $(FUZZ),/fuzz)
VERSION := 0.1.0

PKGS      := hwloc libpci json-c inih libkmod libsystemd libarchive libgcrypt
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
# --as-needed: libarchive, libgcrypt, libkmod and libsystemd are loaded by the few runs that need them (lazy.h); tests use libarchive itself.
PKG_LIBS  := -Wl,--as-needed $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lnuma -Wl,--no-as-needed
# Of the shell of `gpuvm qmp` alone: the launcher does without.
READLINE_LIBS := -lreadline

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla -Wundef \
	-Wformat=2 -Wpointer-arith -Werror
HARDEN := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE
LDHARDEN := -pie -Wl,-z,relro,-z,now,-z,noexecstack
ifneq ($(FUZZ),)
OPT := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fprofile-instr-generate -fcoverage-mapping
LDOPT := -fsanitize=fuzzer,address,undefined -fprofile-instr-generate
else ifeq ($(SAN),)
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
FAKE_SRC := $(filter-out %_main.c tests/fake/libnvfm.c,$(wildcard tests/fake/*.c))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
UNIT_SRC := $(wildcard tests/unit/*.c)
obj = $(patsubst %.c,$(B)/%.o,$(1))

LIB := $(B)/libgpuvm.a
PROGRAMS := $(B)/gpuvm-launch $(B)/gpuvm

.PHONY: all check check-san faults lint lab boots demo bench bench-count bench-record install uninstall clean help fuzz fuzzers analyze example mans
.DELETE_ON_ERROR:

all: $(PROGRAMS)

help:
	@echo "all        the two programs in $(B)/"
	@echo "check      unit, golden and real-QEMU tests"
	@echo "check-san  the same under ASan and UBSan; leaks fail"
	@echo "faults     launcher and QEMU killed at every moment, every call failing once"
	@echo "lint       compiler warnings of the other compiler, cppcheck, shellcheck, codespell, include arrows"
	@echo "analyze    clang-tidy: minutes"
	@echo "boots      the machines of tests/fixtures, started with stand-ins under SeaBIOS and OVMF (CASE=name for one)"
	@echo "lab        the emulated GPU server: every scenario (SCENARIO=name for one)"
	@echo "demo       the main job in the emulated server, to look at"
	@echo "fuzz       every fuzzer for FUZZ_TIME seconds"
	@echo "bench      figures, as ratios against a peer in the same run (docs/BENCH.md)"
	@echo "bench-count, bench-record   instructions of probe, plan and argv against those on record; record them"
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

# It has the script in it, by .incbin.
$(B)/src/core/guest_check.o: src/core/guest-check.sh

# --- tests ---------------------------------------------------------------------------------------

# The fuzzers' entry points are among them, each by a name of its own: their corpora are replayed.
$(B)/tests/unit_tests: $(call obj,$(UNIT_SRC) $(FAKE_SRC) $(FUZZ_SRC)) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) $(READLINE_LIBS) -lcriterion
# What a test loads at run time, without sanitizers of its own.
$(B)/tests/libnvfm.so.1: tests/fake/libnvfm.c
	@mkdir -p $(@D)
	@$(if $(V),,echo "  CC    $<")
	$(Q)$(CC) -shared -fPIC -O1 -g -D_GNU_SOURCE -std=gnu17 $(WARN) -o $@ $<
$(B)/tests/unit_tests: | $(B)/tests/libnvfm.so.1
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

# Fuzzers: make fuzz FUZZ_TIME=600, each for so many seconds of CPU time; tools/fuzz does more.
FUZZ_TIME ?= 60
fuzz:
	tools/fuzz run -t $(FUZZ_TIME)
ifneq ($(FUZZ),)
FUZZERS := $(patsubst tests/fuzz/%.c,$(B)/%,$(FUZZ_SRC))
fuzzers: $(FUZZERS)
$(FUZZERS): $(B)/%: $(B)/tests/fuzz/%.o $(call obj,$(FAKE_SRC)) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) $(READLINE_LIBS)
else
$(B)/tests/fuzz/fuzz_%.o: CPPFLAGS += -DLLVMFuzzerTestOneInput=$(notdir $*)
endif

# --- figures ---------------------------------------------------------------------------------------

BENCHES := $(patsubst tests/bench/%.c,$(B)/tests/%,$(wildcard tests/bench/*.c))
$(BENCHES): $(B)/tests/%: $(B)/tests/bench/%.o $(call obj,$(FAKE_SRC)) $(LIB)
	@$(if $(V),,echo "  LINK  $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm

# make bench BENCH_ARGS="--quick --json"
bench: all $(BENCHES) $(B)/tests/mkhost
	@tests/bench/run --build $(B) $(BENCH_ARGS)
# Instruction counts of probe, plan and argv: those on record, and how to put them there.
bench-count: $(B)/tests/bench_count $(B)/tests/mkhost
	@tests/bench/count $(B)
bench-record: $(B)/tests/bench_count $(B)/tests/mkhost
	@tests/bench/count --record $(B)

lint:
	tools/lint

# Minutes of it: clang-tidy with what .clang-tidy says. The analyzer of gcc 12 is advisory: it takes owned vectors for leaks.
analyze:
	@printf '%s\n' $(wildcard src/*/*.c) | xargs -P "$$(nproc)" -I{} clang-tidy --quiet {} -- $(CPPFLAGS) -std=gnu17 2>/dev/null

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
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	sed 's|@bindir@|$(PREFIX)/bin|' conf/systemd/gpuvm@.service.in >$(DESTDIR)$(PREFIX)/lib/systemd/system/gpuvm@.service
	sed 's|@bindir@|$(PREFIX)/bin|' conf/systemd/gpuvm-fabric.service.in >$(DESTDIR)$(PREFIX)/lib/systemd/system/gpuvm-fabric.service
	install -m 644 conf/systemd/gpuvm.target $(DESTDIR)$(PREFIX)/lib/systemd/system
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system/multi-user.target.wants
	ln -sf ../gpuvm.target $(DESTDIR)$(PREFIX)/lib/systemd/system/multi-user.target.wants/gpuvm.target
	install -m 644 conf/systemd/gpuvm.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/gpuvm.conf
	install -D -m 644 conf/completions/gpuvm.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gpuvm
	ln -sf gpuvm $(DESTDIR)$(PREFIX)/share/bash-completion/completions/gpuvm-launch
	install -D -m 644 conf/completions/_gpuvm $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_gpuvm
	$(foreach m,$(MANS),install -D -m 644 $(m) $(DESTDIR)$(PREFIX)/share/man/man$(call man_section,$(m))/$(notdir $(m)) && ) true

uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,$(notdir $(PROGRAMS)))
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/gpuvm
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/lib/,systemd/system/gpuvm@.service systemd/system/gpuvm-fabric.service systemd/system/gpuvm.target systemd/system/multi-user.target.wants/gpuvm.target tmpfiles.d/gpuvm.conf)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions/gpuvm bash-completion/completions/gpuvm-launch zsh/site-functions/_gpuvm)
	$(foreach m,$(MANS),rm -f $(DESTDIR)$(PREFIX)/share/man/man$(call man_section,$(m))/$(notdir $(m)) && ) true

clean:
	rm -rf build

-include $(shell find $(B) -type f -name '*.d' 2>/dev/null)
