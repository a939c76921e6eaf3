/* test_shards.c: several hosts' data become one data set: classes of all together, labels renumbered, statistics over all images; replicated
 * hosts must hold the same; every mistake has its sentence, the same on all hosts. Method: hosts are threads with a real control channel. */
#include "test/unit/control_bed.h"

#include "train/data/shards.h"

#include <math.h>

enum { HOSTS = 3, SIZE = 2, PIXELS = 3 * SIZE * SIZE };

static char names[HOSTS][HOST_BYTES] = {"algo-1", "algo-2", "algo-3"};

/* What one host holds, and what it came to. */
struct host {
	struct resource resource;
	struct control *control;
	pthread_t thread;
	/* before */
	bool sharded, validation_sharded;
	enum collection_kind kind;
	const char *classes; /* of its images, one letter each: the folder's name, or the label's digit */
	const char *validation;
	const char *damaged[2]; /* what it tells in place of its classes, or of its images; NULL: the truth */
	/* after */
	struct collection train;
	struct dataset dataset;
	struct shards shards;
	enum status status;
	char sentence[STATUS_MESSAGE_BYTES_MAX];
};

static void collection_fill(struct host *host)
{
	collection_open(&host->train, SIZE, NULL);
	for (const char *c = host->classes; *c != '\0'; c++) {
		unsigned label = (unsigned)(*c - '0');
		uint8_t *pixels;
		if (host->kind == COLLECTION_FOLDERS)
			OK(collection_class(&host->train, c, 1, "test", &label));
		OK(collection_kind_set(&host->train, host->kind, "test"));
		OK(collection_add(&host->train, SET_TRAIN, label, &pixels));
		memset(pixels, *c, PIXELS);
	}
	OK(collection_finish(&host->train));
}

/* The data set that dataset_load would make of the collection. */
static void dataset_fill(struct host *host)
{
	struct image_list *list = &host->train.sets[SET_TRAIN];
	static uint8_t validation_pixels[16 * PIXELS];
	static uint16_t validation_labels[16];
	host->dataset = (struct dataset){
		.train = {.pixels = list->pixels, .labels = list->labels, .count = list->count, .size = SIZE},
		.validation = {.pixels = validation_pixels, .labels = validation_labels, .count = strlen(host->validation), .size = SIZE},
		.classes = host->kind == COLLECTION_NUMBERED ? host->train.numbers : (int)host->train.folders.count,
		.class_names = host->train.folders.all,
		.sharded = host->sharded,
		.validation_sharded = host->validation_sharded,
	};
	host->dataset.fingerprint = images_fingerprint(&host->dataset.train);
}

static void *host_run(void *context)
{
	struct host *host = context;
	const char *const *damaged = host->damaged;
	if (damaged[0] != NULL)
		host->status = control_gather(host->control, damaged[0], strlen(damaged[0]), NULL);
	else
		host->status = shards_classes(host->control, &host->resource, host->sharded, &host->train);
	if (host->status == ST_OK && damaged[1] != NULL)
		host->status = control_gather(host->control, damaged[1], strlen(damaged[1]), NULL);
	else if (host->status == ST_OK && damaged[0] == NULL) {
		dataset_fill(host);
		host->status = shards_join(host->control, &host->resource, &host->dataset, &host->shards);
	}
	snprintf(host->sentence, sizeof host->sentence, "%s", host->status == ST_OK ? "" : status_message());
	return NULL;
}

static void hosts_run(struct host hosts[HOSTS])
{
	struct control_bed *bed = control_bed_open(SCOPE_HOSTS, HOSTS);
	control_bed_start(bed);
	for (int i = 0; i < HOSTS; i++) {
		hosts[i].resource = (struct resource){.hosts = names, .hosts_count = HOSTS, .rank = i};
		hosts[i].control = control_bed_member(bed, i, 600000000);
		collection_fill(&hosts[i]);
	}
	for (int i = 0; i < HOSTS; i++)
		assert_int_equal(pthread_create(&hosts[i].thread, NULL, host_run, &hosts[i]), 0);
	for (int i = 0; i < HOSTS; i++)
		pthread_join(hosts[i].thread, NULL);
	for (int i = 0; i < HOSTS; i++)
		control_close(hosts[i].control);
	control_bed_close(bed);
}

static void hosts_free(struct host hosts[HOSTS])
{
	for (int i = 0; i < HOSTS; i++) {
		shards_free(&hosts[i].shards);
		collection_free(&hosts[i].train);
	}
}

static void expect_all(const struct host hosts[HOSTS], enum status status, const char *part)
{
	for (int i = 0; i < HOSTS; i++) {
		assert_int_equal(hosts[i].status, status);
		if (strstr(hosts[i].sentence, part) == NULL)
			fail_msg("\"%s\" lacks \"%s\"", hosts[i].sentence, part);
	}
}

/* --- tests ----------------------------------------------------------------------------------------------------------- */

static void parts_become_one(void **unused)
{
	(void)unused;
	struct host hosts[HOSTS] = {
		{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "bbd", .validation = "x"},
		{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "", .validation = "x"},
		{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "cab", .validation = "x"},
	};
	hosts_run(hosts);
	double sum = 0, squares = 0;
	for (const char *c = "bbdcab"; *c != '\0'; c++) {
		sum += *c / 6.0;
		squares += *c * *c / 6.0;
	}
	for (int i = 0; i < HOSTS; i++) {
		if (hosts[i].status != ST_OK)
			fail_msg("%s", hosts[i].sentence);
		assert_int_equal(hosts[i].train.kind, COLLECTION_FOLDERS);
		assert_int_equal(hosts[i].train.folders.count, 4);
		for (int k = 0; k < 4; k++)
			assert_int_equal(hosts[i].train.folders.all[k][0], "abcd"[k]);
		for (size_t k = 0; k < hosts[i].train.sets[SET_TRAIN].count; k++)
			assert_int_equal(hosts[i].train.sets[SET_TRAIN].labels[k], hosts[i].classes[k] - 'a');
		const struct shards *shards = &hosts[i].shards;
		assert_true(shards->sharded && !shards->validation_sharded);
		assert_int_equal(shards->images[0], 3);
		assert_int_equal(shards->images[1], 0);
		assert_int_equal(shards->images[2], 3);
		assert_int_equal(shards->images_before, i == 0 ? 0 : 3);
		assert_int_equal(shards->fingerprint, hosts[0].shards.fingerprint);
		for (int c = 0; c < 3; c++) {
			assert_true(fabs((double)shards->normalization.mean[c] * 255 - sum) < 1e-4);
			assert_true(fabs((double)shards->normalization.std[c] * 255 - sqrt(squares - sum * sum)) < 1e-4);
		}
	}
	hosts_free(hosts);
}

static void numbered_labels_count_over_all(void **unused)
{
	(void)unused;
	struct host hosts[HOSTS] = {
		{.sharded = true, .kind = COLLECTION_NUMBERED, .classes = "012", .validation = ""},
		{.sharded = true, .kind = COLLECTION_NUMBERED, .classes = "3", .validation = ""},
		{.sharded = true, .kind = COLLECTION_NUMBERED, .classes = "0", .validation = ""},
	};
	hosts_run(hosts);
	for (int i = 0; i < HOSTS; i++)
		assert_int_equal(hosts[i].train.numbers, 4);
	expect_all(hosts, ST_OK, "");
	hosts_free(hosts);
}

static void replicas_are_the_same(void **unused)
{
	(void)unused;
	struct host hosts[HOSTS] = {
		{.kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""},
		{.kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""},
		{.kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""},
	};
	hosts_run(hosts);
	expect_all(hosts, ST_OK, "");
	for (int i = 0; i < HOSTS; i++) {
		assert_false(hosts[i].shards.sharded);
		assert_int_equal(hosts[i].shards.images[2], 2);
		assert_int_equal(hosts[i].shards.images_before, 0);
		assert_int_equal(hosts[i].shards.fingerprint, hosts[i].dataset.fingerprint);
	}
	hosts_free(hosts);
}

static void mistakes_are_told_on_all_hosts(void **unused)
{
	(void)unused;
	static const struct {
		struct host hosts[HOSTS];
		enum status status;
		const char *part;
	} cases[] = {
		{{{.kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""}, {.kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""},
			{.kind = COLLECTION_FOLDERS, .classes = "abb", .validation = ""}}, ST_DATA, "hosts algo-1 and algo-3 hold different"},
		{{{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ab", .validation = "x"}, {.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ab",
			.validation = "xy"}, {.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ab", .validation = "x"}}, ST_DATA, "different validation images"},
		{{{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""}, {.sharded = true, .kind = COLLECTION_NUMBERED, .classes = "0",
			.validation = ""}, {.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "", .validation = ""}}, ST_DATA, "numbered pictures on host algo-2"},
		{{{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "", .validation = ""}, {.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "", .validation = ""},
			{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "", .validation = ""}}, ST_DATA, "empty on all 3 hosts"},
		{{{.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""}, {.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ab",
			.validation = ""}, {.kind = COLLECTION_FOLDERS, .classes = "ab", .validation = ""}}, ST_SETTINGS, "inputdataconfig.json must say the same"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct host hosts[HOSTS];
		memcpy(hosts, cases[i].hosts, sizeof hosts);
		hosts_run(hosts);
		expect_all(hosts, cases[i].status, cases[i].part);
		hosts_free(hosts);
	}
}

/* A message of another host is taken for what it is, not for what it should be. */
static void damaged_messages_are_refused(void **unused)
{
	(void)unused;
#define CLASSES "{\"sharded\":true,\"kind\":0,\"numbers\":0,"
#define IMAGES "{\"fingerprint\":\"1\",\"validation_fingerprint\":\"1\",\"train\":2,\"validation\":1,\"pixels\":8,"
	static const struct {
		const char *damaged[2], *part;
	} cases[] = {
		{{"{\"kind\":0}", NULL}, "has no sharded"},
		{{"{\"sharded\":true,\"kind\":1e300}", NULL}, "has no kind"},
		{{"{\"sharded\":true,\"kind\":-1}", NULL}, "has no kind"},
		{{CLASSES "\"names\":[]}", NULL}, "what host algo-2 told about its classes has no list of names"},
		{{CLASSES "\"folders\":[1],\"names\":[]}", NULL}, "what host algo-2 told about its classes is no list of names"},
		{{"{\"sharded\":true,\"kind\":0,\"numbers\":65537,\"folders\":[],\"names\":[]}", NULL}, "has no numbers"},
		{{NULL, "{\"train\":1e300}"}, "has no train"},
		{{NULL, "{\"train\":1,\"validation\":-1}"}, "has no validation"},
		{{NULL, "{\"train\":1,\"validation\":1}"}, "has no fingerprint"},
		{{NULL, IMAGES "\"sums\":[1]}"}, "has 1 numbers in place of 6"},
		{{NULL, IMAGES "\"sums\":[1,1,1,1,1,1],\"classes\":[1,-1]}"}, "is not a number from 0 on"},
		{{NULL, IMAGES "\"sums\":[1,1,1,1,1,1],\"classes\":[1,true]}"}, "is not a number from 0 on"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct host hosts[HOSTS];
		for (int h = 0; h < HOSTS; h++)
			hosts[h] = (struct host){.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ab", .validation = "", .validation_sharded = true};
		memcpy(hosts[1].damaged, cases[i].damaged, sizeof hosts[1].damaged);
		hosts_run(hosts);
		for (int h = 0; h < HOSTS; h += 2)
			if (hosts[h].status != ST_DEVICE || strstr(hosts[h].sentence, cases[i].part) == NULL)
				fail_msg("case %zu: %s \"%s\" lacks \"%s\"", i, status_name(hosts[h].status), hosts[h].sentence, cases[i].part);
		hosts_free(hosts);
	}
}

/* One host alone needs no channel; "sharded" means nothing then. */
static void one_host_alone(void **unused)
{
	(void)unused;
	struct host host = {.sharded = true, .kind = COLLECTION_FOLDERS, .classes = "ba", .validation = "", .resource = {.hosts = names, .hosts_count = 1}};
	collection_fill(&host);
	host_run(&host);
	assert_int_equal(host.status, ST_OK);
	assert_false(host.shards.sharded);
	assert_int_equal(host.shards.images[0], 2);
	shards_free(&host.shards);
	collection_free(&host.train);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parts_become_one),
		cmocka_unit_test(numbered_labels_count_over_all),
		cmocka_unit_test(replicas_are_the_same),
		cmocka_unit_test(mistakes_are_told_on_all_hosts),
		cmocka_unit_test(damaged_messages_are_refused),
		cmocka_unit_test(one_host_alone),
	};
	return cmocka_run_group_tests_name("shards", tests, NULL, NULL);
}
