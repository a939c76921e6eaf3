/* failure.h: the text that SageMaker shows as the reason of a failed job (/opt/ml/output/failure).
 *
 * Space for it is taken at the start (a hidden file of 4096 bytes beside it), so that a full disk can still be told about; the text is
 * written into that file, which is then renamed. A run that ends well leaves neither. A crash (SIGSEGV and the like) writes a sentence
 * prepared beforehand and then dies by the same signal. A rank writes no file: what it has to tell goes into a pipe to its parent, which
 * writes the one file of the host (train/ranks/words.h). State is one per process; call from the main thread. */
#pragma once

#include "core/base/status.h"

#define FAILURE_BYTES_MAX 1024 /* what SageMaker shows */

/* Reserves the space and installs the crash handlers. `path`: where the text goes; its directory is made if it is missing. A text that an
 * earlier run left there (on a laptop; SageMaker begins with an empty directory) is removed: a file of this user, no longer than ours are.
 * ST_DISK when the space cannot be had; failure_write still works then. */
enum status failure_open(const char *path);

/* In a rank, after the fork: the parent's file is let go, and a crash is told to `fd`, as words_crashed knows it. ST_INTERNAL. */
enum status failure_to_pipe(int fd);

/* Tells why the run failed: "error: …" on stderr and, unless another process has left a failure file with text meanwhile, the file. At most
 * FAILURE_BYTES_MAX bytes of UTF-8 without control characters. Ends like failure_close. Trouble with the file is told on stderr. */
void failure_write(const char *sentence);

/* The run ended well or was stopped: gives the space back. Does nothing when nothing is open. */
void failure_close(void);
