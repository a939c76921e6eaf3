/* libcuda_stub.c: a libcuda.so.1 for machines without a driver, so that cuDNN can plan engines that it compiles at run time.
 *
 * Such an engine is not offered when libcuda.so.1 cannot be loaded or lacks a name that cuDNN looks up. Nothing is run: each function says
 * "not supported", but for the two that cuDNN asks before it compiles: this driver can do CUDA 13.0 and has no device. With no device, cuDNN is
 * content with code that compiles; it does not load it. There is no cuInit: that is how CUDA's runtime sees that no driver is here.
 *
 * For tests of planning alone, by LD_LIBRARY_PATH. */

enum { DONE = 0, NOT_SUPPORTED = 801 };

#define REFUSED(X) \
	X(cuCtxGetCurrent) X(cuCtxGetLimit) X(cuCtxPopCurrent) X(cuCtxPushCurrent) \
	X(cuDeviceGet) X(cuDeviceGetAttribute) \
	X(cuFuncGetName) X(cuFuncSetAttribute) \
	X(cuGetErrorName) X(cuGetErrorString) \
	X(cuGraphAddDependencies) X(cuGraphAddDependencies_v2) X(cuGraphAddKernelNode_v2) X(cuGraphKernelNodeSetAttribute) \
	X(cuGraphKernelNodeSetParams_v2) X(cuGraphNodeGetDependentNodes) \
	X(cuKernelGetAttribute) X(cuKernelSetAttribute) \
	X(cuLaunchCooperativeKernel) X(cuLaunchKernel) X(cuLaunchKernelEx) \
	X(cuLibraryGetKernel) X(cuLibraryLoadData) X(cuLibraryLoadFromFile) X(cuLibraryUnload) \
	X(cuLinkAddData) X(cuLinkComplete) X(cuLinkCreate) X(cuLinkDestroy) \
	X(cuModuleGetFunction) X(cuModuleLoadData) \
	X(cuOccupancyMaxActiveClusters) X(cuOccupancyMaxPotentialClusterSize) \
	X(cuStreamGetCtx)

#define DEFINE(name) \
	int name(void); \
	int name(void) \
	{ \
		return NOT_SUPPORTED; \
	}
REFUSED(DEFINE)

int cuDriverGetVersion(int *version);
int cuDriverGetVersion(int *version)
{
	*version = 13000;
	return DONE;
}

int cuDeviceGetCount(int *count);
int cuDeviceGetCount(int *count)
{
	*count = 0;
	return DONE;
}
