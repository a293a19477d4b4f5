-- What accounting keeps: the events of its goods, and snapshots of them, in the tables of the `eventsourcing` library; the orders
-- that it has received. What the shop keeps: its copy, and which event of accounting's it has written last.

CREATE TYPE stored_event_uuid AS (originator_id uuid, originator_version bigint, topic text, state bytea);
CREATE TABLE accounting_events (originator_id uuid, originator_version bigint, topic text, state bytea,
                                notification_id bigserial UNIQUE, PRIMARY KEY (originator_id, originator_version));
CREATE TABLE accounting_snapshots (originator_id uuid, originator_version bigint, topic text, state bytea,
                                   PRIMARY KEY (originator_id, originator_version));
CREATE TABLE received (message int PRIMARY KEY, result text, level int, version int);

CREATE TABLE goods (sku int PRIMARY KEY, level int NOT NULL, version int NOT NULL);
CREATE TABLE copy_tracking (application_name text PRIMARY KEY, notification_id bigint);
CREATE TABLE parked (message int, effect text, delivery smallint, at bigint);

-- The evidence: the events themselves, and what is no event.
CREATE TABLE written (message int, effect text, sku int, version int, change int, at bigint, delivery smallint,
                      nth bigint GENERATED ALWAYS AS IDENTITY);
CREATE VIEW effects AS
    SELECT (said->>'message')::int AS message, CASE WHEN topic LIKE '%.Taken' THEN 'taken' ELSE 'issued' END AS effect,
           (said->>'sku')::int AS sku, originator_version::int AS version, (said->>'units')::int AS change,
           (said->>'at')::bigint AS at, (said->>'delivery')::smallint AS delivery, notification_id AS nth
        FROM (SELECT *, convert_from(state, 'UTF8')::json AS said FROM accounting_events WHERE originator_version > 0) AS e
    UNION ALL SELECT * FROM written;

-- The state before a run: the first event of each stream is a level, as version 0. Positions go on.
CREATE FUNCTION start_over(_levels int[]) RETURNS void AS $$
BEGIN
    TRUNCATE accounting_events, accounting_snapshots, received, goods, copy_tracking, parked, written;
    INSERT INTO goods SELECT k - 1, level, 0 FROM unnest(_levels) WITH ORDINALITY AS t (level, k);
    INSERT INTO accounting_events (originator_id, originator_version, topic, state)
        SELECT lpad(to_hex(sku), 32, '0')::uuid, 0, 'simlib.architectures.event_sourcing.goods:Goods.Opened',
               convert_to(json_build_object('originator_topic', 'simlib.architectures.event_sourcing.goods:Goods',
                   'timestamp', json_build_object('_type_', 'datetime_iso', '_data_', '2026-01-01T00:00:00+00:00'),
                   'sku', sku, 'level', level)::text, 'UTF8')
            FROM goods;
END $$ LANGUAGE plpgsql;

-- Accounting rejects an order: no event, but an answer. With `_once`, an order that was received before gets its first answer again.
CREATE FUNCTION reject(_message int, _sku int, INOUT _level int, INOUT _version int, _at bigint, _delivery int, _once bool,
                       OUT _result text) AS $$
BEGIN
    _result := 'rejected';
    IF _once THEN
        INSERT INTO received VALUES (_message, 'rejected', _level, _version) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT result, level, version INTO _result, _level, _version FROM received WHERE message = _message;
            RETURN;
        END IF;
    END IF;
    INSERT INTO written VALUES (_message, 'rejected', _sku, _version, 0, _at, _delivery);
END $$ LANGUAGE plpgsql;

-- The shop's copy gets the level that an event left. With `_newer` one that is older than the copy is not written.
CREATE FUNCTION write_copy(_message int, _effect text, _sku int, _to int, _of int, _change int, _at bigint, _delivery int,
                           _newer bool) RETURNS void AS $$
BEGIN
    UPDATE goods SET level = _to, version = _of WHERE sku = _sku AND (version < _of OR NOT _newer);
    INSERT INTO written VALUES (_message, CASE WHEN FOUND THEN _effect ELSE 'superseded' END, _sku, _of, _change, _at, _delivery);
END $$ LANGUAGE plpgsql;
