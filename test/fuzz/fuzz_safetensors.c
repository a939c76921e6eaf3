/* Any bytes as a safetensors file. Seeds: files of the safetensors package. */
#include "core/format/safetensors.h"
#include "test/fuzz/fuzz_tensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	(void)safetensors_sniff(bytes, count);
	fuzz_tensors(safetensors_read, bytes, count);
	return 0;
}
