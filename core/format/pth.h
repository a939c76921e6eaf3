/* pth.h: the tensors of a file that torch.save wrote, without Python and without running anything.
 *
 * In: a file's bytes: the zip container (torch ≥ 1.6; its records stored, as torch does, or deflated) or the legacy one of concatenated
 * pickles. Out: the tensors of the state dict in it, as views into those bytes, or into memory of the list for deflated ones. Where the
 * state dict lies: under "state_dict" (Lightning), else under "model_state_dict", "model", "net" or "weights", else it is the whole object.
 * Numbers, strings and unknown objects beside tensors are passed over.
 *
 * Refused, each with its sentence: TorchScript, whole pickled modules, sparse and quantised tensors, element types that are not in
 * tensor.h, big-endian files, tensors that reach past their storage, storages shorter than declared, wrong CRCs. */
#pragma once

#include "core/format/tensor.h"

/* True for the first bytes (16 suffice) of a zip file, of a legacy torch file. */
bool pth_is_zip(const uint8_t *bytes, size_t count);
bool pth_is_legacy(const uint8_t *bytes, size_t count);

/* Appends the state dict's tensors to the empty `list`; their views point into `bytes`, which must outlive it, or into the list's own
 * memory. `file` goes into sentences. The caller frees the list, also after a failure. ST_DATA, ST_MEMORY. */
enum status pth_read(const char *file, const uint8_t *bytes, size_t count, struct tensor_list *list);
