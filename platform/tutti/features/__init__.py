"""Music as numbers that models read: vocabulary, events, descriptors, mood, augmentation."""
