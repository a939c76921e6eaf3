/* Goal: whatever somebody saved weights in is opened by its content; several candidates are chosen among by the stated rule; what is no
 * weight file is refused with a sentence.
 * Method: golden files under other names, in directories, and in archives that tar makes here. */
#include "core/format/weights.h"
#include "test/unit/golden_weights.h"

#include <sys/stat.h>
#include <unistd.h>

static char directory[64];

static int make_directory(void **state)
{
	(void)state;
	snprintf(directory, sizeof directory, "/tmp/test_weights_XXXXXX");
	return mkdtemp(directory) == NULL || setenv("D", directory, 1) != 0;
}

/* A command in the repository's root; $D is the directory, $G the golden files. */
static void shell(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s", command);
}

static int remove_directory(void **state)
{
	(void)state;
	shell("rm -rf $D");
	return 0;
}

static const char *in(const char *name)
{
	static char path[256];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return path;
}

static void open_golden(const char *path, enum dtype dtype)
{
	struct weights weights = {0};
	if (weights_open(path, &weights) != ST_OK)
		fail_msg("%s", status_message());
	golden_check(&weights.tensors, dtype);
	assert_non_null(strstr(weights.name, path));
	weights_close(&weights);
}

static void refuse(const char *path, const char *sentence)
{
	struct weights weights = {0};
	if (weights_open(path, &weights) != ST_DATA || strstr(status_message(), sentence) == NULL || strstr(status_message(), path) == NULL)
		fail_msg("%s: \"%s\", expected \"%s\"", path, status_message(), sentence);
	assert_null(weights.bytes);
}

static void content_decides_not_the_name(void **state)
{
	(void)state;
	shell("cp $G/f16.safetensors $D/weights.pth");
	open_golden(in("weights.pth"), DTYPE_F16);
	shell("cp $G/legacy_f32.pth $D/model.safetensors");
	open_golden(in("model.safetensors"), DTYPE_F32);
	open_golden(GOLDEN "model_key.pt", DTYPE_F32);
}

static void prefixes_of_wrappers_are_taken_off(void **state)
{
	(void)state;
	open_golden(GOLDEN "prefixed.pth", DTYPE_F32);
	open_golden(GOLDEN "lightning.ckpt", DTYPE_F32);
}

static void archives_are_searched(void **state)
{
	(void)state;
	shell("tar czf $D/model.tar.gz -C $G make_weights.py zip_bf16.pth protocol_4.pkl");
	open_golden(in("model.tar.gz"), DTYPE_BF16);
	shell("tar cf $D/plain -C $G f64.safetensors");
	open_golden(in("plain"), DTYPE_F64);
	/* model.safetensors is taken before others, wherever it lies in the archive. */
	shell("mkdir $D/deep && cp $G/f16.safetensors $D/deep/model.safetensors");
	shell("tar czf $D/two.tgz -C $PWD/$G zip_f32.pth zip_f64.pth -C $D deep/model.safetensors");
	open_golden(in("two.tgz"), DTYPE_F16);
	shell("tar cf $D/many.tar -C $G zip_f32.pth zip_f64.pth");
	refuse(in("many.tar"), "zip_f32.pth and zip_f64.pth");
	shell("tar cf $D/none.tar -C $G make_weights.py");
	refuse(in("none.tar"), "no weight file");
	shell("cd $D && touch storages tensors && tar cf old.tar storages tensors && rm storages tensors");
	refuse(in("old.tar"), "before 0.2");
	shell("head -c 1000 $D/model.tar.gz > $D/cut.tar.gz");
	struct weights weights = {0};
	assert_int_equal(weights_open(in("cut.tar.gz"), &weights), ST_DATA);
}

static void directories_are_searched(void **state)
{
	(void)state;
	shell("echo no weights > $D/readme.txt");
	refuse(directory, "no weight file");
	shell("cp $G/zip_f64.pth $D/any.name");
	shell("mkdir $D/checkpoints && cp $G/zip_f32.pth $D/checkpoints/model.pth");
	open_golden(directory, DTYPE_F64);
	shell("cp $G/zip_f32.pth $D/.hidden.pth");
	open_golden(directory, DTYPE_F64);
	shell("cp $G/zip_f32.pth $D/second.pth");
	refuse(directory, "several weight files");
	shell("cp $G/zip_bf16.pth $D/model.pth");
	open_golden(directory, DTYPE_BF16);
	shell("cp $G/f16.safetensors $D/model.safetensors");
	open_golden(directory, DTYPE_F16);
	shell("rm $D/*.*");
	shell("tar czf $D/model.tar.gz -C $G zip_bf16.pth");
	open_golden(directory, DTYPE_BF16);
}

static void other_files_are_refused(void **state)
{
	(void)state;
	refuse(in("missing"), "cannot be opened");
	shell("printf PYTORCH1 > $D/preview");
	refuse(in("preview"), "preview format");
	refuse(GOLDEN "protocol_4.pkl", "bare Python pickle");
	refuse(GOLDEN "make_weights.py", "neither safetensors nor");
	shell("touch $D/empty");
	refuse(in("empty"), "neither safetensors nor");
	shell("printf '\\002\\000\\000\\000\\000\\000\\000\\000{}' > $D/nothing");
	refuse(in("nothing"), "no tensors");
	refuse(GOLDEN "script.pt", "TorchScript");
	refuse(GOLDEN "module.pth", "torch.nn.modules.linear.Linear");
}

int main(void)
{
	setenv("G", GOLDEN, 1);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(content_decides_not_the_name, make_directory, remove_directory),
		cmocka_unit_test(prefixes_of_wrappers_are_taken_off),
		cmocka_unit_test_setup_teardown(archives_are_searched, make_directory, remove_directory),
		cmocka_unit_test_setup_teardown(directories_are_searched, make_directory, remove_directory),
		cmocka_unit_test_setup_teardown(other_files_are_refused, make_directory, remove_directory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
