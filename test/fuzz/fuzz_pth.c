/* Any bytes as a file of torch.save, zip or legacy. Seeds: torch's own files, and one zip without CRCs, so that a changed record is
 * looked at and not just refused. */
#include "core/format/pth.h"
#include "test/fuzz/fuzz_tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	fuzz_tensors(pth_read, bytes, count);
	return 0;
}
