/* Goal: machines that cannot work are refused with a sentence that says why. Method: the rules by themselves, and the probe on this machine, which
 * may have no driver. */
#include "core/backend/cuda/device.h"
#include "test/unit/scratch.h"

static void test_drivers(void **state)
{
	(void)state;
	FAILS(ST_DEVICE, "no NVIDIA driver", driver_check(0, 13000, ""));
	FAILS(ST_DEVICE, "driver 550.54.15 can do CUDA 12.4", driver_check(12040, 13000, "550.54.15"));
	FAILS(ST_DEVICE, "580.65.06 or newer", driver_check(12090, 13000, ""));
	FAILS(ST_DEVICE, "525.60.13 or newer", driver_check(11080, 12090, ""));
	OK(driver_check(13000, 13000, ""));
	OK(driver_check(13010, 13000, "")); /* a newer driver */
	OK(driver_check(13000, 13020, "")); /* an older one of the same major version */
	OK(driver_check(14000, 13000, ""));
	OK(driver_check(13000, 12090, ""));
}

static void test_cudnn_versions(void **state)
{
	(void)state;
	OK(cudnn_check(91900, 91900));
	OK(cudnn_check(92600, 91900));
	FAILS(ST_DEVICE, "cuDNN 9.10.2 answers", cudnn_check(91002, 91900));
	FAILS(ST_DEVICE, "needs 9.19.0", cudnn_check(100000, 91900));
}

static enum status check(int capability)
{
	return device_check(&(struct device_facts){.name = "some GPU", .bus = "0000:00:1E.0", .capability = capability});
}

static void test_gpus(void **state)
{
	(void)state;
	static const int known[] = {75, 80, 86, 87, 89, 90, 100, 103, 120, 121};
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		OK(check(known[i]));
	FAILS(ST_DEVICE, "0000:00:1E.0 (some GPU) has compute capability 6.1", check(61));
	FAILS(ST_DEVICE, "7.5, 8.0, 8.6, 8.9, 9.0, 10.0, 12.0", check(61));
	FAILS(ST_DEVICE, "compute capability 13.0", check(130));
#if CUDA_FLAVOUR == 12
	OK(check(70));
#else
	FAILS(ST_DEVICE, "make cuda12", check(70));
#endif
	FAILS(ST_DEVICE, "compute capability 6.0", check(60));
}

static void test_this_machine(void **state)
{
	(void)state;
	static struct device_list list;
	list.count = -1;
	if (device_probe(&list) != ST_OK) {
		assert_int_equal(list.count, -1);
		assert_true(strlen(status_message()) > 0);
		print_message("%s\n", status_message());
		return;
	}
	assert_in_range(list.count, 0, DEVICES_MAX);
	for (int i = 0; i < list.count; i++) {
		assert_true(list.devices[i].name[0] != 0 && list.devices[i].bus[0] != 0);
		assert_true(list.devices[i].memory_bytes > 0 && list.devices[i].multiprocessors > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drivers),
		cmocka_unit_test(test_cudnn_versions),
		cmocka_unit_test(test_gpus),
		cmocka_unit_test(test_this_machine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
