-- What outlives runs, as the log does, stands in a schema of its own, which no run empties. The position of the side's group in each
-- partition of the topic that it reads: the record that is next.
CREATE SCHEMA log;
CREATE TABLE log.positions (part int PRIMARY KEY, next bigint NOT NULL);

-- The group goes on from here, or from where it is further already. In one transaction with an effect: both are committed, or neither.
CREATE FUNCTION keep_position(_part int, _next bigint) RETURNS void AS $$
BEGIN
    INSERT INTO log.positions VALUES (_part, _next) ON CONFLICT (part) DO UPDATE SET next = greatest(positions.next, _next);
END $$ LANGUAGE plpgsql;

-- An order that windows have counted, with the count of its window after it.
CREATE FUNCTION land_count(_message int, _sku int, _count int, _at bigint, _part int, _next bigint) RETURNS void AS $$
BEGIN
    INSERT INTO effects VALUES (_message, 'counted', _sku, _count, 0, _at, 1);
    PERFORM keep_position(_part, _next);
END $$ LANGUAGE plpgsql;
