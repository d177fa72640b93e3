"""The scenarios, in the order in which they are run."""

from chaos.scenarios import consumers, disks, messages, networks, outages, producers, soak, topics
from chaos.scenarios.scenario import Scenario

ALL: tuple[Scenario, ...] = (
    consumers.consumer_killed_in_mid_batch,
    consumers.consumer_killed_before_commit,
    consumers.consumer_killed_after_parking,
    consumers.consumer_stopped,
    consumers.consumer_asleep,
    consumers.consumers_come_and_go,
    producers.producer_killed,
    producers.producer_stopped,
    outages.kafka_killed,
    outages.kafka_stopped,
    outages.kafka_frozen,
    outages.mongodb_killed,
    outages.mongodb_stopped,
    outages.mongodb_frozen,
    outages.mongodb_slow,
    outages.mongodb_cut_in_mid_bulk,
    networks.consumer_cut_from_kafka,
    networks.consumer_cut_from_mongodb,
    messages.poison_1_percent,
    messages.poison_50_percent,
    messages.poison_100_percent,
    messages.refused_documents,
    messages.documents_mongodb_refuses,
    messages.duplicates_replayed,
    messages.two_message_formats,
    messages.clock_set_back,
    topics.dead_letter_topic_missing,
    topics.dead_letter_topic_too_small,
    topics.dead_letter_topic_not_authorized,
    topics.partitions_added,
    topics.committed_offset_expired,
    topics.topic_made_again_meanwhile,
    topics.topic_made_again_longer,
    disks.disk_full_for_undelivered,
    disks.disk_full_for_sqlite,
)

ON_REQUEST: tuple[Scenario, ...] = (soak.soak,)
"""Those that take hours."""

PROTECTIONS = tuple(sorted({protection for scenario in ALL for protection in scenario.protection}))
