/* Goal: every host finds the same ranks, whatever the file's order or extra keys; what is wrong is refused with its name. Method:
 * resourceconfig.json in the shapes that the platform, SDK local mode and its newer versions write. Conformance tests 26–30. */
#include "train/ranks/resource.h"

#include "test/unit/base_dir.h"

#include <net/if.h>

static char base[64];
static struct opt_ml opt_ml;
static struct resource resource;

static int setup(void **unused)
{
	(void)unused;
	base_dir_make(base, &opt_ml);
	return 0;
}

static int teardown(void **unused)
{
	(void)unused;
	base_dir_remove(base);
	return 0;
}

static void load(const char *text)
{
	base_dir_config(base, "resourceconfig.json", text);
	if (resource_load(&opt_ml, &resource) != ST_OK)
		fail_msg("%s: %s", text, status_message());
}

static void refused(const char *text, const char *part)
{
	struct resource untouched = {.rank = 77};
	base_dir_config(base, "resourceconfig.json", text);
	if (resource_load(&opt_ml, &untouched) != ST_SETTINGS)
		fail_msg("%s was not refused", text);
	assert_int_equal(untouched.rank, 77);
	sentence_has("resourceconfig.json", part, NULL);
}

static void one_host(void **unused)
{
	(void)unused;
	static const char *const shapes[] = {
		NULL,
		"",
		"{}",
		"{\"hosts\":[],\"current_host\":null}",
		"{\"current_host\":\"algo-1-x7k2p\",\"hosts\":[\"algo-1-x7k2p\"],\"network_interface_name\":\"eth0\",\"current_instance_type\":\"local\"}",
		"{\"current_host\":\"algo-1\",\"current_instance_type\":\"ml.g5.xlarge\",\"current_group_name\":\"homogeneousCluster\",\"hosts\":[\"algo-1\"],"
		"\"instance_groups\":[{\"instance_group_name\":\"homogeneousCluster\",\"instance_type\":\"ml.g5.xlarge\",\"hosts\":[\"algo-1\"]}],"
		"\"network_interface_name\":\"eth0\",\"topology\":null}",
		"{\"current_host\":\"algo-1\",\"hosts\":[\"algo-1\"],\"topology\":[{\"hostName\":\"algo-1\",\"capacityUnitId\":\"u\"}],\"new\":{\"a\":[1]}}",
		"{\"hosts\":[\"algo-1\"]}",
		"{\"current_host\":\"algo-1\"}",
	};
	for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
		load(shapes[i]);
		assert_int_equal(resource.hosts_count, 1);
		assert_int_equal(resource.rank, 0);
		assert_string_equal(resource_host(&resource), i < 4 ? "localhost" : i == 4 ? "algo-1-x7k2p" : "algo-1");
		resource_free(&resource);
	}
	resource_free(&resource); /* {0} */
}

static void ranks(void **unused)
{
	(void)unused;
	static const char *const order[] = {"algo-1", "algo-10", "algo-11", "algo-12", "algo-2", "algo-3", "algo-4", "algo-5", "algo-6", "algo-7", "algo-8", "algo-9"};
	for (int host = 1; host <= 12; host++) {
		char text[600];
		int used = snprintf(text, sizeof text, "{\"current_host\":\"algo-%d\",\"instance_groups\":[{\"hosts\":[\"algo-7\",\"algo-1\"]}],\"hosts\":[", host);
		for (int i = 0; i < 12; i++) /* another order on each host */
			used += snprintf(text + used, sizeof text - (size_t)used, "%s\"algo-%d\"", i > 0 ? "," : "", (i * 5 + host) % 12 + 1);
		snprintf(text + used, sizeof text - (size_t)used, "]}");
		load(text);
		assert_int_equal(resource.hosts_count, 12);
		for (int i = 0; i < 12; i++)
			assert_string_equal(resource.hosts[i], order[i]);
		char name[16];
		snprintf(name, sizeof name, "algo-%d", host);
		assert_string_equal(resource_host(&resource), name);
		assert_string_equal(order[resource.rank], name);
		resource_free(&resource);
	}
}

static void interfaces(void **unused)
{
	(void)unused;
	static const char *const absent[] = {"\"ethwe\"", "\"\"", "null", "\"a-name-longer-than-an-interface-can-have\"", "\"../../etc\""};
	for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
		char text[200];
		snprintf(text, sizeof text, "{\"network_interface_name\":%s}", absent[i]);
		load(text);
		assert_string_equal(resource.interface, "");
		resource_free(&resource);
	}
	if (if_nametoindex("lo") != 0) {
		load("{\"network_interface_name\":\"lo\"}");
		assert_string_equal(resource.interface, "lo");
		resource_free(&resource);
	}
}

static void wrong(void **unused)
{
	(void)unused;
	refused("{\"current_host\":\"algo-3\",\"hosts\":[\"algo-1\",\"algo-2\"]}", "current_host algo-3 is not among the 2 hosts");
	refused("{\"hosts\":[\"algo-1\",\"algo-2\"]}", "2 hosts, but current_host");
	refused("{\"hosts\":\"algo-1\"}", "hosts must be a list");
	refused("{\"hosts\":[1]}", "hosts must be a host's name, found a number");
	refused("{\"hosts\":[\"a\",\"b\",\"a\"],\"current_host\":\"a\"}", "host a is there twice");
	refused("{\"current_host\":7}", "current_host must be a host's name, found a number");
	refused("{\"current_host\":\"../x\"}", "\"../x\" is no host name");
	refused("{\"current_host\":\"a/b\"}", "\"a/b\" is no host name");
	refused("{\"current_host\":\"\"}", "is no host name");
	refused("{\"network_interface_name\":3}", "network_interface_name");
	refused("{\"current_host\": algo-1}", "line 1, byte ");
	refused("[]", "object");
	/* Names and lists that are too long. */
	char *text = malloc(100000);
	sprintf(text, "{\"current_host\":\"%0254d\"}", 0);
	refused(text, "is no host name");
	int used = sprintf(text, "{\"current_host\":\"0\",\"hosts\":[\"0\"");
	for (int i = 1; i <= HOSTS_MAX; i++)
		used += sprintf(text + used, ",\"%d\"", i);
	strcpy(text + used, "]}");
	refused(text, "4097 hosts");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_host, setup, teardown),
		cmocka_unit_test_setup_teardown(ranks, setup, teardown),
		cmocka_unit_test_setup_teardown(interfaces, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
