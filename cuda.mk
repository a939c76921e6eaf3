# cuda.mk: how the GPU backend is made, core/backend/cuda; the Makefile includes it.
#
#     make cuda        build/cuda13/smelt_cuda.so, for Turing (T4) and newer
#     make cuda12      build/cuda12/smelt_cuda.so, for Volta (V100), too
#     make test-cuda   its tests
#
# toolkit/ (headers, libraries) → compile_kernels → cubins/ → smelt_cuda.so. VARIANT=asan and so on compile the C files their own way, into
# build/asan/cuda13; toolkit and cubins are the same for all.

CUDA := core/backend/cuda
COMMA := ,
CUDA_SOURCES := $(wildcard $(CUDA)/*.c)
CUDA_TESTS := $(wildcard test/cuda/test_*.c)
# What kernels.cu may include. No compiler's list of dependencies here: NVRTC makes none.
CUDA_KERNELS := $(CUDA)/kernels.cu $(wildcard $(CUDA)/*.h)
CUDA_COMPILER := $(CUDA)/toolkit/compile_kernels.c $(patsubst %,core/base/%.c,status text file memory log)
CUDA_CFLAGS = $(filter-out -fPIE,$(CFLAGS)) -fPIC
CUDA_BUILD := $(if $(filter release,$(VARIANT)),build,$(B))
CUDA_TO_TOP := $(if $(filter release,$(VARIANT)),..,../..)

.PHONY: cuda cuda12 cuda-tests
cuda: deps cuda13-library
cuda12: deps cuda12-library
cuda-tests: $(CUDA_TESTS:test/cuda/%.c=$(CUDA_BUILD)/cuda13/test/%)

define cuda_flavour
.PHONY: cuda$(1)-library
cuda$(1)-library: $(CUDA_BUILD)/cuda$(1)/smelt_cuda.so

build/cuda$(1)/toolkit/source: $(CUDA)/toolkit/fetch
	@$(CUDA)/toolkit/fetch $(1) build/cuda$(1)/toolkit

# NVRTC looks for a library of its own at run time: only the old kind of path (RPATH) holds for that, too.
build/cuda$(1)/compile_kernels: $(CUDA_COMPILER) $(CUDA)/architectures.h build/cuda$(1)/toolkit/source
	$$(call RUN,CC,$$@)gcc -std=c17 -O1 -g -D_POSIX_C_SOURCE=200809L -I. $(WARNINGS) $(GCC_WARNINGS) -DCUDA_FLAVOUR=$(1) \
		-isystem build/cuda$(1)/toolkit/include $(CUDA_COMPILER) -Wl,--disable-new-dtags,-rpath,'$$$$ORIGIN/toolkit/lib' -Lbuild/cuda$(1)/toolkit/lib -lnvrtc -lz -o $$@

build/cuda$(1)/cubins/kernels.txt: build/cuda$(1)/compile_kernels $(CUDA_KERNELS)
	$$(call RUN,NVRTC,$$@)build/cuda$(1)/compile_kernels $(CUDA)/kernels.cu build/cuda$(1)/cubins -I. -Ibuild/cuda$(1)/toolkit/include

$(CUDA_BUILD)/cuda$(1)/%.o: $(CUDA)/%.c cuda.mk Makefile build/cuda$(1)/toolkit/source
	@mkdir -p $$(@D)
	$$(call RUN,CC,$$@)$(CC) $$(CPPFLAGS) $(CUDA_CFLAGS) $(WARNINGS) $(if $(findstring clang,$(CC)),,$(GCC_WARNINGS)) -DCUDA_FLAVOUR=$(1) \
		-DCUBINS='"build/cuda$(1)/cubins"' -isystem build/cuda$(1)/toolkit/include -MMD -MP -c $$< -o $$@
$(CUDA_BUILD)/cuda$(1)/kernels_images.o: build/cuda$(1)/cubins/kernels.txt

# NVRTC, which cuDNN opens, opens this by its name alone and looks nowhere: it must be there already.
CUDA_BUILTINS_$(1) = -Wl,--push-state,--no-as-needed -l:$$(notdir $$(wildcard build/cuda$(1)/toolkit/lib/libnvrtc-builtins.so.*)) -Wl,--pop-state

# NVIDIA's libraries lie beside it in the image, in toolkit/lib here.
$(CUDA_BUILD)/cuda$(1)/smelt_cuda.so: $(CUDA_SOURCES:$(CUDA)/%.c=$(CUDA_BUILD)/cuda$(1)/%.o) $(CUDA)/library_symbols.list
	$$(call RUN,LD,$$@)$(CC) $(CUDA_CFLAGS) $(filter-out -pie,$(LDFLAGS)) -shared $$(filter %.o,$$^) -Wl,--enable-new-dtags \
		-Wl,--version-script=$(CUDA)/library_symbols.list \
		-Wl,-rpath,'$$$$ORIGIN:$$$$ORIGIN/$(CUDA_TO_TOP)/cuda$(1)/toolkit/lib' -Lbuild/cuda$(1)/toolkit/lib -lcudart -lcudnn -lnccl $$(CUDA_BUILTINS_$(1)) -lpthread -lm -o $$@

# A test of the room's files sees all of them, also what the library keeps to itself.
$(CUDA_BUILD)/cuda$(1)/test/%.o: test/cuda/%.c cuda.mk Makefile build/cuda$(1)/toolkit/source
	@mkdir -p $$(@D)
	$$(call RUN,CC,$$@)$(CC) $$(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(if $(findstring clang,$(CC)),,$(GCC_WARNINGS)) -DCUDA_FLAVOUR=$(1) \
		-isystem build/cuda$(1)/toolkit/include -MMD -MP -c $$< -o $$@
$(CUDA_BUILD)/cuda$(1)/libsmelt_cuda.a: $(CUDA_SOURCES:$(CUDA)/%.c=$(CUDA_BUILD)/cuda$(1)/%.o)
	@rm -f $$@
	$$(call RUN,AR,$$@)ar rcs $$@ $$^
$(CUDA_BUILD)/cuda$(1)/test/%: $(CUDA_BUILD)/cuda$(1)/test/%.o $(CUDA_BUILD)/cuda$(1)/libsmelt_cuda.a $(LIBRARY)
	$$(call RUN,LD,$$@)$(CC) $(CFLAGS) $$(LDFLAGS) $$(filter %.o,$$^) $$(filter %.a,$$^) -Wl,-rpath,'$$$$ORIGIN/$(CUDA_TO_TOP)/../cuda$(1)/toolkit/lib' \
		-Lbuild/cuda$(1)/toolkit/lib -lcudart -lcudnn -lnccl $$(CUDA_BUILTINS_$(1)) -lcmocka $(LDLIBS) -o $$@

# Planning without a driver: cuDNN finds this beside the tests of planning.
$(CUDA_BUILD)/cuda$(1)/test/libcuda.so.1: test/sim/libcuda_stub.c
	@mkdir -p $$(@D)
	$$(call RUN,CC,$$@)$(CC) -std=c17 -O1 $(WARNINGS) -shared -fPIC -Wl,-soname,libcuda.so.1 $$< -o $$@
$(CUDA_BUILD)/cuda$(1)/test/test_plan: LDFLAGS += $(patsubst %,-Wl$(COMMA)--wrap=cudnnBackend%,CreateDescriptor DestroyDescriptor SetAttribute GetAttribute Finalize)
$(patsubst %,$(CUDA_BUILD)/cuda$(1)/test/%,test_plan test_plan_sweep): | $(CUDA_BUILD)/cuda$(1)/test/libcuda.so.1

-include $(CUDA_SOURCES:$(CUDA)/%.c=$(CUDA_BUILD)/cuda$(1)/%.d) $(CUDA_TESTS:test/cuda/%.c=$(CUDA_BUILD)/cuda$(1)/test/%.d)
endef
$(foreach flavour,13 12,$(eval $(call cuda_flavour,$(flavour))))

# --- cost: a step on paper, test/cuda/cost ----------------------------------------------------------------------------------

COST := $(patsubst test/cuda/%.c,$(CUDA_BUILD)/cuda13/test/%.o,$(wildcard test/cuda/cost/*.c))
$(CUDA_BUILD)/cuda13/test/test_cost: $(COST)
-include $(COST:.o=.d)

# The tables in the backend's README.
.PHONY: cost
cost: $(CUDA_BUILD)/cuda13/test/test_cost
	@SMELT_README=write $<
.PHONY: graphs plans plans12
graphs: $(CUDA_BUILD)/cuda13/test/test_unit_graphs
	@SMELT_README=write $<
plans: $(CUDA_BUILD)/cuda13/test/test_plan_sweep
	@SMELT_README=write $< whole
plans12: $(CUDA_BUILD)/cuda12/test/test_plan_sweep
	@SMELT_README=write $< whole

# --- simulator: test/sim, NVIDIA's libraries as programs on the CPU ---------------------------------------------------------
# For LD_LIBRARY_PATH=build/sim. Compiled one way for all variants.

SIM := build/sim
SIM_CC = gcc -std=c17 -O3 -g -fno-math-errno -fno-trapping-math -fPIC -D_POSIX_C_SOURCE=200809L -I. -isystem build/cuda13/toolkit/include $(WARNINGS) $(GCC_WARNINGS)

.PHONY: sim
SIM_KERNELS := $(if $(shell grep -l lanes.h $(CUDA)/kernels.cu),$(SIM)/kernels_host.o)
sim: $(SIM)/libcudart.so.13 $(SIM)/libnccl.so.2

$(SIM)/%.o: test/sim/%.c cuda.mk build/cuda13/toolkit/source
	@mkdir -p $(@D)
	$(call RUN,CC,$@)$(SIM_CC) -MMD -MP -c $< -o $@

# Sums are defined operation by operation.
$(SIM)/kernels_host.o: $(CUDA_KERNELS) cuda.mk
	@mkdir -p $(@D)
	$(call RUN,CXX,$@)g++ -std=c++17 -O3 -g -fPIC -ffp-contract=off -fno-math-errno -fno-trapping-math -I. $(CXX_WARNINGS) -x c++ -c $< -o $@

# A program that was linked with NVIDIA's library asks for its versions of symbols, too.
$(SIM)/libcudart.so.13: $(patsubst test/sim/%.c,$(SIM)/%.o,$(wildcard test/sim/cudart*.c)) $(SIM_KERNELS) test/sim/cudart.map
	$(call RUN,LD,$@)gcc -shared $(filter %.o,$^) -Wl,-soname,libcudart.so.13,--version-script,test/sim/cudart.map -Wl,-z,now,-z,defs -lpthread -lm -o $@

$(SIM)/libnccl.so.2: $(patsubst test/sim/%.c,$(SIM)/%.o,$(wildcard test/sim/nccl*.c)) $(SIM)/libcudart.so.13
	$(call RUN,LD,$@)gcc -shared $^ -Wl,-soname,libnccl.so.2 -Wl,-z,now,-z,defs -Wl,-rpath,'$$ORIGIN' -lpthread -o $@

# The simulator's own tests are linked with it.
SIM_TESTS := $(CUDA_BUILD)/cuda13/test/test_sim $(CUDA_BUILD)/cuda13/test/test_sim_nccl
$(SIM_TESTS): $(CUDA_BUILD)/cuda13/test/%: $(CUDA_BUILD)/cuda13/test/%.o $(SIM)/libcudart.so.13 $(SIM)/libnccl.so.2
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $^ -Wl,-rpath,'$$ORIGIN/$(CUDA_TO_TOP)/../sim' -lcmocka -o $@

# cuDNN: products may use fused multiply-adds, as its kernels do.
$(SIM)/cudnn_convolve.o: SIM_CC += -ffp-contract=fast
sim: $(SIM)/libcudnn.so.9
$(SIM)/libcudnn.so.9: $(patsubst test/sim/%.c,$(SIM)/%.o,$(wildcard test/sim/cudnn_*.c)) $(SIM)/libcudart.so.13 test/sim/cudnn.map
	$(call RUN,LD,$@)gcc -shared $(filter-out %.map,$^) -Wl,-soname,libcudnn.so.9,--version-script,test/sim/cudnn.map -Wl,-z,now,-z,defs \
		-Wl,-rpath,'$$ORIGIN' -lpthread -lm -o $@

# Its tests drive it through the backend's planner.
SIM_PLANNER := $(patsubst %,$(CUDA_BUILD)/cuda13/%.o,graph check cudnn_graph plan plan_cache plan_engines plan_time)
SIM_CUDNN_TESTS := $(patsubst test/cuda/%.c,$(CUDA_BUILD)/cuda13/test/%,$(wildcard test/cuda/test_sim_cudnn*.c))
$(SIM_CUDNN_TESTS): %: %.o $(SIM_PLANNER) $(SIM)/libcudnn.so.9 $(SIM)/libcudart.so.13 $(LIBRARY)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $^ -Wl,-rpath,'$$ORIGIN/$(CUDA_TO_TOP)/../sim' -lcmocka $(LDLIBS) -o $@

-include $(wildcard $(SIM)/*.d)

# --- the kernels' bodies as host code, for tests -----------------------------------------------------------------------------
# Where a kernel promises bits, each operation is rounded by itself.

$(B)/kernels_host.o: $(CUDA_KERNELS) cuda.mk Makefile
	@mkdir -p $(@D)
	$(call RUN,CXX,$@)$(CXX) $(patsubst -std=c17,-std=c++17,$(CPPFLAGS) $(CFLAGS)) -ffp-contract=off $(CXX_WARNINGS) -x c++ -c $< -o $@
CUDA_KERNEL_TESTS := $(patsubst test/cuda/%.c,$(CUDA_BUILD)/cuda13/test/%,$(wildcard test/cuda/test_cuda_kernels*.c))
$(CUDA_KERNEL_TESTS): %: %.o $(B)/kernels_host.o $(LIBRARY)
	$(call RUN,LD,$@)$(CC) $(CFLAGS) $(LDFLAGS) $^ -lcmocka $(LDLIBS) -o $@
