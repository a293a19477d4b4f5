-- What outlives runs, as the log does, stands in a schema of its own, which no run empties. The position of the side's group in each
-- partition of the topic that it reads: the record that is next.
CREATE SCHEMA log;
CREATE TABLE log.positions (part int PRIMARY KEY, next bigint NOT NULL);

-- The group goes on from here, or from where it is further already. In one transaction with an effect: both are committed, or neither.
CREATE FUNCTION keep_position(_part int, _next bigint) RETURNS void AS $$
BEGIN
    INSERT INTO log.positions VALUES (_part, _next) ON CONFLICT (part) DO UPDATE SET next = greatest(positions.next, _next);
END $$ LANGUAGE plpgsql;

-- What the windows program has counted: orders of a SKU, and their units, in the window that opened at that time (ms of the epoch).
CREATE TABLE log.windows (sku int, opened bigint, orders int NOT NULL, units int NOT NULL, PRIMARY KEY (sku, opened));
