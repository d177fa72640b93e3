"""The SQL of the ledger.

A `position` is the partition and, in 47 bits, the offset of a message as one integer; a negative one is unknown. A
`timestamp` is that of the message, in milliseconds since the epoch, or NULL if unknown. An `id` is a text or an
integer. The `hash` of a message that the processing skips is NULL. The tables have all that can be a finding, not every
message, see `ledger.py`.
"""

TABLES = """
    CREATE TABLE produced (position INTEGER PRIMARY KEY, id, timestamp INTEGER, hash INTEGER);
    CREATE TABLE dead_lettered (
        position INTEGER, dead_letter INTEGER, timestamp INTEGER, PRIMARY KEY (position, dead_letter)) WITHOUT ROWID;
    CREATE TABLE replay_markers (identity TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE stored (position INTEGER, id, timestamp INTEGER, PRIMARY KEY (position, id)) WITHOUT ROWID;
    CREATE TABLE missing (position INTEGER PRIMARY KEY, id, hash INTEGER, timestamp INTEGER, result TEXT);
    CREATE TABLE twice (position INTEGER, problem TEXT);
"""

ADD_PRODUCED = "INSERT OR IGNORE INTO produced VALUES (?, ?, ?, ?)"
ADD_DEAD_LETTERED = "INSERT OR IGNORE INTO dead_lettered VALUES (?, ?, ?)"
ADD_REPLAY_MARKER = "INSERT OR IGNORE INTO replay_markers VALUES (?)"
ADD_STORED = "INSERT OR IGNORE INTO stored VALUES (?, ?, ?)"
# Also messages that were copied because of a dead letter of a former topic, which is deleted then.
DEAD_LETTERED_OR_COPIED_BETWEEN = """
    SELECT position FROM dead_lettered WHERE position BETWEEN :first AND :last
     UNION
    SELECT position FROM produced WHERE position BETWEEN :first AND :last"""

COUNT_PRODUCED = "SELECT count(*) FROM produced"
COUNT_STORED = """
    SELECT count(*) FROM produced
     WHERE EXISTS (SELECT 1 FROM stored WHERE stored.position = produced.position)"""
COUNT_MARKED = f"{COUNT_STORED} AND hash = ?"  # as deleted
COUNT_DEAD_LETTERED = """
    SELECT count(*) FROM produced
     WHERE EXISTS (SELECT 1 FROM dead_lettered WHERE dead_lettered.position = produced.position)
       AND NOT EXISTS (SELECT 1 FROM stored WHERE stored.position = produced.position)"""
COUNT_REPEATED = "SELECT count(*) FROM (SELECT 1 FROM dead_lettered GROUP BY position, timestamp HAVING count(*) > 1)"

# A topic that was recreated has other messages at the same positions: their timestamps differ.
EXCLUDE_DOCUMENTS_OF_FORMER_TOPICS = """
    UPDATE OR REPLACE stored SET position = -1, timestamp = NULL WHERE EXISTS (
        SELECT 1 FROM produced
         WHERE produced.position = stored.position AND produced.timestamp <> stored.timestamp)"""
EXCLUDE_DEAD_LETTERS_OF_FORMER_TOPICS = """
    DELETE FROM dead_lettered WHERE EXISTS (
        SELECT 1 FROM produced
         WHERE produced.position = dead_lettered.position AND produced.timestamp <> dead_lettered.timestamp)"""

# Neither a document nor a dead letter has the position of the message.
FIND_MISSING = """
    INSERT INTO missing
    SELECT position, id, hash, timestamp, iif(hash IS NULL, 'skipped', 'lost') FROM produced
     WHERE NOT EXISTS (SELECT 1 FROM stored WHERE stored.position = produced.position)
       AND NOT EXISTS (SELECT 1 FROM dead_lettered WHERE dead_lettered.position = produced.position)"""
INDEX_MISSING = "CREATE INDEX missing_id ON missing (id)"
MISSING_IDS = "SELECT DISTINCT id FROM missing WHERE id IS NOT NULL LIMIT ?"
FIND_EXPIRED = "UPDATE missing SET result = 'expired' WHERE result = 'lost' AND timestamp < :deleted_before"
# The same message was sent before, while its document, which has expired since, existed.
FIND_EXPIRED_DUPLICATES = """
    UPDATE missing SET result = 'expired' WHERE position IN (
        SELECT missing.position
          FROM produced CROSS JOIN missing ON missing.id = produced.id
         WHERE produced.timestamp < :deleted_before AND produced.hash = missing.hash
           AND missing.timestamp BETWEEN produced.timestamp AND produced.timestamp + :ttl)"""
# The same message, sent before or after, has a document. A message with the same id and other content is not the same;
# if retention has deleted the message of the document, the contents cannot be compared.
FIND_DUPLICATES = (
    """
    UPDATE missing SET result = 'duplicate' WHERE position IN (
        SELECT missing.position
          FROM stored CROSS JOIN missing ON missing.id = stored.id
          LEFT JOIN produced ON produced.position = stored.position
         WHERE produced.hash IS NULL OR (produced.id, produced.hash) = (missing.id, missing.hash))""",
    # That document may have another id, which an earlier processing gave it.
    """
    UPDATE missing SET result = 'duplicate' WHERE position IN (
        SELECT missing.position
          FROM stored CROSS JOIN produced USING (position)
          CROSS JOIN missing ON missing.id = produced.id AND missing.hash = produced.hash)""",
)
# With `document.write: replace` or `merge` the newest record of an id decides on its document: in a partition the last
# one, and otherwise that with the latest timestamp, see `stores/order.py`. A document of a former topic is older than
# any message, although the store may take it for newer.
EXCLUDE_DOCUMENTS_BEYOND = """
    UPDATE OR REPLACE stored SET position = -1, timestamp = NULL WHERE position BETWEEN ? AND ?"""
FIND_SUPERSEDED = (
    """
    CREATE TABLE newest AS
    SELECT id, position >> 47 AS "partition", max(position) AS position, max(timestamp) AS timestamp
      FROM (SELECT id, position, timestamp FROM stored
             UNION ALL
            SELECT id, position, timestamp FROM produced
             WHERE NOT EXISTS (SELECT 1 FROM dead_lettered WHERE dead_lettered.position = produced.position))
     WHERE id IS NOT NULL GROUP BY 1, 2""",
    "CREATE INDEX newest_id ON newest (id)",
    """
    UPDATE missing SET result = 'superseded' WHERE result = 'lost' AND EXISTS (
        SELECT 1 FROM newest
         WHERE newest.id = missing.id
           AND CASE
               WHEN "partition" = missing.position >> 47 THEN newest.position > missing.position
               WHEN "partition" < 0 THEN newest.timestamp >= coalesce(missing.timestamp, -1e99)
               ELSE (coalesce(newest.timestamp, -1e99), "partition")
                  > (coalesce(missing.timestamp, -1e99), missing.position >> 47)
               END)""",
)
FIND_OUTDATED = ("UPDATE missing SET result = 'outdated' WHERE result = 'lost' AND id IN (SELECT id FROM stored)",)
FIND_DELETED = """
    UPDATE missing SET result = 'deleted' WHERE result = 'lost' AND hash = ? AND id NOT IN (SELECT id FROM stored)"""
COUNT_MISSING = "SELECT count(*) FROM missing WHERE result = ?"
FIRST_LOST = """
    SELECT position, id,
           iif(result = 'lost', 'neither stored nor dead-lettered', 'the store has an older record of its id')
      FROM missing WHERE result IN ('lost', 'outdated') ORDER BY position LIMIT ?"""

# A dead letter that was replayed or discarded is dealt with, although its message may be stored since. As in
# `dead_letters/entries.py`, a marker is for every dead letter of its message, also for those written after it.
FIND_TWICE = (
    """
    INSERT INTO twice SELECT DISTINCT position, 'stored and dead-lettered' FROM dead_lettered
     WHERE EXISTS (SELECT 1 FROM stored WHERE stored.position = dead_lettered.position
                      AND (stored.timestamp <> dead_lettered.timestamp) IS NOT TRUE)
       AND :topic || '/' || (position >> 47) || '/' || (position & (1 << 47) - 1) || '/' || coalesce(timestamp, '-')
           NOT IN (SELECT identity FROM replay_markers)""",
    """
    INSERT INTO twice SELECT position, count(*) || ' documents' FROM stored
     WHERE position >= 0 GROUP BY position, timestamp HAVING count(*) > 1""",
)
COUNT_TWICE = "SELECT count(DISTINCT position) FROM twice"
COUNT_OTHER_IDS = """
    SELECT count(*) FROM stored JOIN produced USING (position) WHERE stored.id IS NOT produced.id"""
FIRST_TWICE = """
    SELECT position, produced.id, group_concat(problem, ', ') FROM twice LEFT JOIN produced USING (position)
     GROUP BY position ORDER BY position LIMIT ?"""
