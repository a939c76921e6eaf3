# make            build/bin/train
# make demo       train on a small data set made here (CIFAR100=DIR: on the real one), serve the model and ask it; DEVICES=4: on four GPUs, or in four
#                 processes on a CPU; DEVICES=4 SIMULATE=1: on four simulated GPUs
# make test       everything that must hold; ends with "N passed, N failed"
# make bench      speed by layer, as a share of this machine's measured peak (PEERS=1: and of training beside PyTorch, fetched from PyPI)
# make help       the other targets
#
# V=1 shows whole commands. Variants are separate folders: build/release, build/asan, build/clang. VARIANT=asan make … builds that one.

VARIANT ?= release
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

# The one list of what a bare Debian 12 needs.
PACKAGES_BUILD := gcc g++ make pkg-config libcjson-dev libarchive-dev libpthreadpool-dev libprotobuf-c-dev protobuf-c-compiler libstb-dev zlib1g-dev \
	libmicrohttpd-dev libgloo-dev libbz2-dev liblzma-dev libzstd-dev nettle-dev
# … of which the programs need these when they run: what the image has.
PACKAGES_RUN := libbz2-1.0 libcjson1 libgloo0 liblzma5 libmicrohttpd12 libnettle8 libprotobuf-c1 libpthreadpool0 libstdc++6 libzstd1 zlib1g
# … what NVIDIA's libraries are fetched with, and whose code is in the programs.
PACKAGES_CUDA := ca-certificates python3-pip
PACKAGES_INSIDE := libarchive-dev libstb-dev
PACKAGES_TEST := libcmocka-dev clang-14 libclang-rt-14-dev python3 python3-venv

VERSION := 0.1.0
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

B := build/$(VARIANT)
BIN := $(if $(filter release,$(VARIANT)),build/bin,$(B)/bin)

CC := gcc
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wundef -Wvla -Wdouble-promotion -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes \
	-Wwrite-strings -Wpointer-arith -Werror
# A message cut to its bound is meant; a path cut is checked where it is made.
GCC_WARNINGS := -Wno-format-truncation
# Against exploits; test/cli/test_programs.py looks for each in the programs.
HARDENING := -fstack-protector-strong -fstack-clash-protection
CFLAGS := -std=c17 -O3 -g -fno-math-errno -fno-trapping-math $(HARDENING) -fPIE
# C++ is for what has no C interface (Gloo), one file each; it is compiled with C's flags but those that only C has.
CXX := g++
CXX_WARNINGS = $(filter-out -Wstrict-prototypes -Wmissing-prototypes,$(WARNINGS)) -Wmissing-declarations -Wnon-virtual-dtor -Woverloaded-virtual
CPPFLAGS := -D_POSIX_C_SOURCE=200809L -D_FORTIFY_SOURCE=2 -I. -I$(B)/gen -isystem /usr/include/stb
LDFLAGS := -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed
# Its archive, not its shared library: that one brings libxml2 and ICU, 36 MB, for formats that are not read here.
LIBARCHIVE := -l:libarchive.a -lnettle -lbz2 -llzma -lzstd
# A program depends on those that it uses (--as-needed): train on Gloo, serve not.
LDLIBS := -lmicrohttpd $(LIBARCHIVE) -lcjson -lprotobuf-c -lpthreadpool -lgloo -lstdc++ -lz -lm -lpthread

ifeq ($(VARIANT),asan)
CFLAGS := -std=c17 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all -fno-math-errno -fPIE
CPPFLAGS := $(filter-out -D_FORTIFY_SOURCE=2,$(CPPFLAGS))
endif
ifeq ($(VARIANT),clang)
CC := clang-14
CXX := clang++-14
endif
ifeq ($(VARIANT),fuzz)
CC := clang-14
CXX := clang++-14
CFLAGS := -std=c17 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-math-errno -fPIE
CPPFLAGS := $(filter-out -D_FORTIFY_SOURCE=2,$(CPPFLAGS))
endif
ifeq ($(VARIANT),tsan)
CFLAGS := -std=c17 -O1 -g -fno-omit-frame-pointer -fsanitize=thread -fno-math-errno -fPIE
CPPFLAGS := $(filter-out -D_FORTIFY_SOURCE=2,$(CPPFLAGS))
endif

# Objects in the order data passes through them. A new file in a room is found by itself.
CORE := $(wildcard core/base/*.c core/comm/*.c core/model/*.c core/format/*.c core/kernels/*.c core/backend/*.c core/backend/ref/*.c core/backend/cpu/*.c \
	core/engine/*.c)
CORE_CXX := $(wildcard core/comm/*.cc)
TRAIN := $(filter-out train/main.c,$(wildcard train/*.c train/settings/*.c train/data/*.c train/ranks/*.c train/report/*.c train/selftest/*.c))
SERVE := $(filter-out serve/main.c,$(wildcard serve/*.c serve/decode/*.c))
PROTO := $(wildcard train/report/*.proto)
GENERATED := $(PROTO:%.proto=$(B)/gen/%.pb-c.c)
OBJECTS := $(CORE:%.c=$(B)/%.o) $(CORE_CXX:%.cc=$(B)/%.o) $(TRAIN:%.c=$(B)/%.o) $(SERVE:%.c=$(B)/%.o) $(GENERATED:%.c=%.o)
LIBRARY := $(B)/libsmelt.a

UNIT := $(patsubst test/unit/%.c,$(B)/test/%,$(wildcard test/unit/test_*.c))
FUZZ := $(patsubst test/fuzz/%.c,build/fuzz/test/%,$(wildcard test/fuzz/fuzz_*.c))
BENCH := $(patsubst test/bench/%.c,$(B)/bench/%,$(filter-out test/bench/bench_comm.c,$(wildcard test/bench/bench_*.c)))

PROGRAMS := $(BIN)/train $(if $(wildcard serve/main.c),$(BIN)/serve)

.PHONY: all help deps deps-test demo data test test-unit test-cli test-http test-clients test-fuzz test-cuda test-long conformance bench bench-serve bench-ranks readme unit-programs fuzz-programs install install-cuda image image-lock image-test push clean

all: $(PROGRAMS)

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile
	@echo "make data       download the official CIFAR-100 archive into build/data and check its md5"
	@echo "make test-long  slow extras"
	@echo "make conformance the SageMaker contract's tests, number by number"
	@echo "make cuda       build/cuda13/smelt_cuda.so, the GPU backend for Turing (T4) and newer; make cuda12: for Volta (V100), too"
	@echo "make install    the programs, stripped, into DESTDIR/usr/local/bin"
	@echo "make image      the container image smelt:cpu, with docker or, as root, buildah (STAGE=cuda: smelt, with GPUs; STAGE=cu12: for V100s, too)"
	@echo "make image-test both programs run from it; make push ACCOUNT=… REGION=… sends it to Amazon's registry"
	@echo "make test-clients SageMaker's own clients (SDK v2, v3, boto3) and PyTorch, from PyPI, against our programs"
	@echo "make readme     write the README's tables of metrics and settings"
	@echo "make deps       install what the build needs (as root), or say what to install"

# --- what a bare machine lacks ---------------------------------------------------------------------------------------

define need_packages
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q '^install ok' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ]; then \
			echo "installing:" $$missing; \
			(apt-get install -y --no-install-recommends $$missing || (apt-get update && apt-get install -y --no-install-recommends $$missing)) >build-packages.log 2>&1 \
				|| { tail -n 5 build-packages.log; echo "apt-get could not install:" $$missing; exit 1; }; rm -f build-packages.log; \
		else \
			echo "These packages are missing. As root:"; echo "  apt-get update && apt-get install -y --no-install-recommends" $$missing; exit 1; \
		fi; \
	fi
endef

deps:
	$(call need_packages,$(PACKAGES_BUILD))
deps-test: deps
	$(call need_packages,$(PACKAGES_TEST))

# --- compile ---------------------------------------------------------------------------------------------------------

# Starts a command; only its short name is shown.
RUN = $(if $(V),,@echo "$(1) $(2)" && )

# Files compiled for one instruction set each; chosen at run time, so only these get such flags.
$(B)/core/kernels/kernels_avx2.o: CFLAGS += -mavx2 -mfma
$(B)/core/kernels/kernels_avx512.o: CFLAGS += -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512
# A multiply and an add may become one instruction in the kernels: their results are defined per instruction set.
$(B)/core/kernels/%.o: CFLAGS += -ffp-contract=fast
# Our own code is held to every warning; a library compiled from its header is not ours to mend.
$(B)/core/format/stb.o: WARNINGS := -w
$(B)/core/format/stb.o: CFLAGS += -fno-sanitize=undefined

# Wherever the tree lies, the programs have the same bytes.
PREFIX_MAP := -ffile-prefix-map=$(CURDIR)=.

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call RUN,CC,$<)$(CC) $(CPPFLAGS) $(CFLAGS) $(PREFIX_MAP) $(WARNINGS) $(if $(findstring clang,$(CC)),,$(GCC_WARNINGS)) -MMD -MP -c $< -o $@

# What a sanitizer asks of types at run time, a library that was built without it cannot answer: no vptr.
$(B)/%.o: %.cc Makefile
	@mkdir -p $(@D)
	$(call RUN,CXX,$<)$(CXX) $(CPPFLAGS) $(patsubst -std=c17,-std=c++17,$(CFLAGS)) $(PREFIX_MAP) $(if $(findstring undefined,$(CFLAGS)),-fno-sanitize=vptr) \
		$(CXX_WARNINGS) -MMD -MP -c $< -o $@

# The commit is in the program: another one, another object.
FLAGS_TOLD := $(CFLAGS) $(filter -D_FORTIFY%,$(CPPFLAGS)) $(LDFLAGS)
$(B)/core/base/version.o: $(B)/commit-$(COMMIT)
$(B)/commit-$(COMMIT):
	@mkdir -p $(@D) && rm -f $(B)/commit-* && touch $@
$(B)/core/base/version.o: CPPFLAGS += -DSMELT_VERSION='"$(VERSION)"' -DSMELT_COMMIT='"$(COMMIT)"' \
	-DSMELT_COMPILER='"$(shell $(CC) --version | head -n 1)"' -DSMELT_FLAGS='"$(FLAGS_TOLD)"'

$(B)/gen/%.pb-c.c: %.proto
	@mkdir -p $(B)/gen
	$(call RUN,PB,$<)protoc-c --c_out=$(B)/gen $<
$(B)/gen/%.o: $(B)/gen/%.c Makefile
	$(call RUN,CC,$<)$(CC) $(CPPFLAGS) $(CFLAGS) $(PREFIX_MAP) -w -c $< -o $@
$(TRAIN:%.c=$(B)/%.o): | $(GENERATED)

$(LIBRARY): $(OBJECTS)
	@rm -f $@
	$(call RUN,AR,$@)ar rcs $@ $^

$(BIN)/%: $(B)/%/main.o $(LIBRARY)
	@mkdir -p $(@D)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $(filter %.o %.a,$^) $(LDLIBS) -o $@

$(B)/test/%: $(B)/test/unit/%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $^ -lcmocka $(LDLIBS) -o $@

$(B)/bench/%: $(B)/test/bench/%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(B)/demo_pictures: $(B)/test/demo/pictures.o $(B)/test/demo/paint.o $(LIBRARY)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(B)/make_model: $(B)/test/http/make_model.o $(LIBRARY)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LDLIBS) -o $@

build/fuzz/test/fuzz_%: build/fuzz/test/fuzz/fuzz_%.o build/fuzz/libsmelt.a
	@mkdir -p $(@D)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $^ $(LDLIBS) -o $@

unit-programs: $(UNIT)
fuzz-programs: $(FUZZ)

# Our GPU backend: a library that train loads when a driver is there.
include cuda.mk
$(BIN)/train: LDFLAGS += -Wl,--dynamic-list=core/backend/cuda/host_symbols.list
$(BIN)/train: core/backend/cuda/host_symbols.list

# --- try -------------------------------------------------------------------------------------------------------------

demo: deps
	$(call need_packages,curl)
	@echo "building (a minute or two the first time)"
	@$(MAKE) --no-print-directory -s -j$$(nproc) all $(B)/demo_pictures $(if $(SIMULATE),cuda sim)
	@DEVICES=$(DEVICES) SIMULATE=$(SIMULATE) EPOCHS=$(EPOCHS) test/demo/demo $(BIN)/train $(BIN)/serve $(B)/demo_pictures '$(CIFAR100)'
data:
	@test/demo/data build/data

# --- test ------------------------------------------------------------------------------------------------------------

# One runner counts the lines of every test program and prints the totals; see test/README.md.
test: deps-test
	@test/run all
test-unit: deps-test
	@test/run unit
test-cli: deps-test
	@test/run cli
test-http: deps-test
	@test/run http
test-clients: deps-test
	@test/run clients
test-fuzz: deps-test
	@test/run fuzz
test-cuda: deps-test
	@test/run cuda
test-long: deps-test
	@test/run long

# The contract's list, number by number; README=1 writes the README's table. As root it builds the image and asks that, too.
conformance: deps-test
	@if [ "$$(id -u)" = 0 ]; then image/build cpu >build-image.log 2>&1 || { tail -n 3 build-image.log; echo "no image: its tests are not run"; }; rm -f build-image.log; fi
	@test/run conformance; test/conformance $(if $(README),--readme)

# The README's tables of metrics and settings, from the program's own.
readme: $(B)/test/test_readme
	@SMELT_README=write $(B)/test/test_readme

bench: deps
	@$(MAKE) --no-print-directory $(BENCH)
	@for program in $(BENCH); do $$program || exit 1; done
ifdef PEERS
	@$(MAKE) --no-print-directory $(BIN)/train
	@python=$$(test/bench/peers) && $$python test/bench/bench_train.py
endif

# serve under load; PEERS=1 measures two Python servers in the same run.
bench-serve: deps
	$(call need_packages,wrk)
	@$(MAKE) --no-print-directory -s all $(B)/make_model
	@python3 test/bench/bench_serve.py $(if $(PEERS),--peers "$$(test/bench/peers)")

# Several ranks on this machine: what their sums cost.
bench-ranks: deps
	@$(MAKE) --no-print-directory -s $(B)/bench/bench_comm
	@$(B)/bench/bench_comm
	@$(MAKE) --no-print-directory -s all
	@python3 test/bench/bench_ranks.py

DOCUMENTS = $(DESTDIR)/usr/local/share/doc/smelt
install: all
	install -d $(DESTDIR)/usr/local/bin $(DOCUMENTS)/licences
	install -s -m 755 $(PROGRAMS) $(DESTDIR)/usr/local/bin
	for package in $(PACKAGES_INSIDE); do install -m 644 /usr/share/doc/$$package/copyright $(DOCUMENTS)/licences/$$package || exit 1; done
	(echo smelt $(VERSION) $(COMMIT); dpkg-query -W -f='deb $${Package} $${Version}\n' $(PACKAGES_INSIDE)) >$(DOCUMENTS)/components
# The GPU backend beside NVIDIA's libraries: FLAVOUR=13 or 12.
FLAVOUR := 13
TOOLKIT = build/cuda$(FLAVOUR)/toolkit
install-cuda: install cuda$(filter 12,$(FLAVOUR))
	install -d $(DESTDIR)/usr/local/lib/smelt
	install -s -m 755 build/cuda$(FLAVOUR)/smelt_cuda.so $(DESTDIR)/usr/local/lib/smelt
	install -m 755 $(TOOLKIT)/lib/*.so.* $(DESTDIR)/usr/local/lib/smelt
	test ! -d $(TOOLKIT)/licences || install -m 644 $(TOOLKIT)/licences/* $(DOCUMENTS)/licences
	tr , '\n' <$(TOOLKIT)/source | awk 'NF == 2 { print "nvidia", $$1, $$2 }' >>$(DOCUMENTS)/components

# --- image, see image/README.md --------------------------------------------------------------------------------------

STAGE := cpu
SMELT_IMAGE = smelt:$(patsubst cuda,latest,$(STAGE))
image:
	@image/build $(STAGE)
image-lock:
	@image/lock run base $(PACKAGES_RUN)
	@image/lock build runtime $(PACKAGES_BUILD)
	@image/lock cuda runtime $(PACKAGES_BUILD) $(PACKAGES_CUDA)
push:
	@image/push $(SMELT_IMAGE) '$(ACCOUNT)' '$(REGION)' $(REPOSITORY)
image-test: deps-test image
	@SMELT_IMAGE=$(SMELT_IMAGE) test/run image

clean:
	rm -rf build

$(B)/serve/page.o: serve/page/page.html

-include $(OBJECTS:.o=.d) $(B)/train/main.d $(B)/serve/main.d $(wildcard $(B)/test/unit/*.d $(B)/test/bench/*.d $(B)/test/fuzz/*.d)
