-- What a side has registered for the next file to the other, and the changes of its goods that register: both in one transaction.

CREATE TABLE registered (nth bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, message int, effect text, sku int, level int,
                         version int, change int, session int, handling jsonb, steps jsonb);
CREATE INDEX registered_sku ON registered (sku);

-- Register a level for the shop. Where only the last of a SKU goes into a file, the one before it is superseded: `_gone`.
CREATE FUNCTION register(_message int, _effect text, _sku int, _to int, _of int, _change int, _at bigint, _handling jsonb,
                         _coalesce boolean, OUT _gone int) AS $$
BEGIN
    IF _coalesce THEN
        WITH before AS (DELETE FROM registered WHERE sku = _sku RETURNING *)
            INSERT INTO effects SELECT message, 'superseded', sku, version, change, _at, 0 FROM before
            RETURNING message INTO _gone;
    END IF;
    INSERT INTO registered (message, effect, sku, level, version, change, handling)
        VALUES (_message, _effect, _sku, _to, _of, _change, _handling);
END $$ LANGUAGE plpgsql;

-- `change_stock`, registered.
CREATE FUNCTION change_and_register(_message int, _sku int, _change int, _at bigint, _handling jsonb, _coalesce boolean,
                                    OUT _gone int) AS $$
DECLARE now record;
BEGIN
    SELECT * INTO now FROM change_stock(_message, _sku, _change, _at);
    _gone := register(_message, 'copied', _sku, now._level, now._version, _change, _at, _handling, _coalesce);
END $$ LANGUAGE plpgsql;

-- `promise`, registered as the order that it is.
CREATE FUNCTION promise_and_register(_message int, _sku int, _quantity int, _session int, _handling jsonb, _steps jsonb,
                                     OUT _promised boolean) AS $$
BEGIN
    _promised := promise(_sku, _quantity);
    IF _promised THEN
        INSERT INTO registered (message, effect, sku, change, session, handling, steps)
            VALUES (_message, 'taken', _sku, _quantity, _session, _handling, _steps);
    END IF;
END $$ LANGUAGE plpgsql;

-- Orders that a file holds: `take_stock` for each; those whose units were taken that were not before, each registered.
CREATE FUNCTION take_orders(_messages int[], _skus int[], _quantities int[], _handlings jsonb[], _refused boolean[], _at bigint,
                            _delivery int, _once boolean, _coalesce boolean)
    RETURNS TABLE (taken int, made int, gone int) AS $$
DECLARE one record; now record;
BEGIN
    FOR one IN SELECT * FROM unnest(_messages, _skus, _quantities, _handlings, _refused)
                   AS t (message, sku, quantity, handling, refused) LOOP
        SELECT * INTO now FROM take_stock(one.message, one.sku, one.quantity, _at, _delivery, _once, one.refused);
        IF now._result = 'taken' AND NOT now._again THEN
            taken := one.message;
            made := now._version;
            gone := register(one.message, 'announced', one.sku, now._level, now._version, -one.quantity, _at,
                             one.handling, _coalesce);
            RETURN NEXT;
        END IF;
    END LOOP;
END $$ LANGUAGE plpgsql;

-- Levels that a file holds: `write_copy` for each. What no message changed mends a copy that is older.
CREATE FUNCTION write_copies(_messages int[], _effects text[], _skus int[], _levels int[], _versions int[], _changes int[],
                             _at bigint, _delivery int, _once boolean, _newer boolean) RETURNS void AS $$
DECLARE one record;
BEGIN
    FOR one IN SELECT * FROM unnest(_messages, _effects, _skus, _levels, _versions, _changes)
                   AS t (message, effect, sku, level, version, change) WHERE message IS NOT NULL LOOP
        PERFORM write_copy(one.message, one.effect, one.sku, one.level, one.version, one.change, _at, _delivery, _once, _newer);
    END LOOP;
    UPDATE goods SET level = t.level, version = t.version
        FROM unnest(_messages, _skus, _levels, _versions) AS t (message, sku, level, version)
        WHERE t.message IS NULL AND goods.sku = t.sku AND goods.version < t.version;
END $$ LANGUAGE plpgsql;
