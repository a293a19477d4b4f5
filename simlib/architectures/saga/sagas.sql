-- What the shop remembers of its sagas: the order as it came, where the saga is, and the stock that its last answer told.
CREATE TABLE sagas (message int PRIMARY KEY, content text NOT NULL, at text NOT NULL, level int NOT NULL DEFAULT -1,
                    version int NOT NULL DEFAULT -1, nth bigint GENERATED ALWAYS AS IDENTITY);

-- A saga is over, as a service told: `_at` 'completed' or 'cancelled'. With a level of the stock, the copy learns it, if that is
-- newer.
CREATE FUNCTION end_saga(_message int, _at text, _sku int, _level int, _version int, _now bigint,
                         _delivery int, OUT _over bool) AS $$
BEGIN
    INSERT INTO sagas VALUES (_message, '', _at) ON CONFLICT (message) DO UPDATE SET at = _at;
    IF _level >= 0 THEN
        PERFORM write_copy(_message, 'restocked', _sku, _level, _version, 0, _now, _delivery, false, true);
    END IF;
    _over := true;
END $$ LANGUAGE plpgsql;
