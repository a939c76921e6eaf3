/* labels.c: see labels.h. */
#include "core/model/labels.h"

/* Fine name, coarse label; in the order of the fine labels. */
#define CIFAR100_LIST(X) \
	X(apple, 4) X(aquarium_fish, 1) X(baby, 14) X(bear, 8) X(beaver, 0) X(bed, 6) X(bee, 7) X(beetle, 7) X(bicycle, 18) \
	X(bottle, 3) X(bowl, 3) X(boy, 14) X(bridge, 9) X(bus, 18) X(butterfly, 7) X(camel, 11) X(can, 3) X(castle, 9) \
	X(caterpillar, 7) X(cattle, 11) X(chair, 6) X(chimpanzee, 11) X(clock, 5) X(cloud, 10) X(cockroach, 7) X(couch, 6) \
	X(crab, 13) X(crocodile, 15) X(cup, 3) X(dinosaur, 15) X(dolphin, 0) X(elephant, 11) X(flatfish, 1) X(forest, 10) \
	X(fox, 12) X(girl, 14) X(hamster, 16) X(house, 9) X(kangaroo, 11) X(keyboard, 5) X(lamp, 5) X(lawn_mower, 19) \
	X(leopard, 8) X(lion, 8) X(lizard, 15) X(lobster, 13) X(man, 14) X(maple_tree, 17) X(motorcycle, 18) X(mountain, 10) \
	X(mouse, 16) X(mushroom, 4) X(oak_tree, 17) X(orange, 4) X(orchid, 2) X(otter, 0) X(palm_tree, 17) X(pear, 4) \
	X(pickup_truck, 18) X(pine_tree, 17) X(plain, 10) X(plate, 3) X(poppy, 2) X(porcupine, 12) X(possum, 12) \
	X(rabbit, 16) X(raccoon, 12) X(ray, 1) X(road, 9) X(rocket, 19) X(rose, 2) X(sea, 10) X(seal, 0) X(shark, 1) \
	X(shrew, 16) X(skunk, 12) X(skyscraper, 9) X(snail, 13) X(snake, 15) X(spider, 13) X(squirrel, 16) X(streetcar, 19) \
	X(sunflower, 2) X(sweet_pepper, 4) X(table, 6) X(tank, 19) X(telephone, 5) X(television, 5) X(tiger, 8) \
	X(tractor, 19) X(train, 18) X(trout, 1) X(tulip, 2) X(turtle, 15) X(wardrobe, 6) X(whale, 0) X(willow_tree, 17) \
	X(wolf, 8) X(woman, 14) X(worm, 13)

const char *const labels_cifar100[CIFAR100_CLASSES] = {
#define X(name, coarse) #name,
	CIFAR100_LIST(X)
#undef X
};

const uint8_t labels_cifar100_coarse[CIFAR100_CLASSES] = {
#define X(name, coarse) coarse,
	CIFAR100_LIST(X)
#undef X
};

const char *const labels_cifar10[CIFAR10_CLASSES] = {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"};
