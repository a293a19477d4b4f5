-- The outbox of a side, and the changes of its goods with what is to be told of them: both in one transaction. A row is marked
-- where a relay polls the table; one that tails the log reads it there, and the table stays empty.

CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, message int, event text, body text,
                     sent boolean NOT NULL DEFAULT false);
CREATE INDEX unsent ON outbox (id) WHERE NOT sent;
CREATE PUBLICATION outbox;

-- What is to be published; with `_logged` into the log alone, where it stands or falls with the transaction as a row does.
CREATE FUNCTION tell(_message int, _event text, _body jsonb, _logged boolean) RETURNS void AS $$
BEGIN
    IF _logged THEN
        PERFORM pg_logical_emit_message(true, _message || '-' || _event, _body::text);
    ELSE
        INSERT INTO outbox (message, event, body) VALUES (_message, _event, _body);
    END IF;
END $$ LANGUAGE plpgsql;

-- `change_stock`, told with the new level and version.
CREATE FUNCTION change_and_tell(_message int, _sku int, _change int, _at bigint, _body jsonb, _logged boolean,
                                OUT _level int, OUT _version int) AS $$
BEGIN
    SELECT * INTO _level, _version FROM change_stock(_message, _sku, _change, _at);
    PERFORM tell(_message, 'copied', _body || jsonb_build_object('level', _level, 'version', _version), _logged);
END $$ LANGUAGE plpgsql;

-- `take_stock`, told where units were taken that were not before.
CREATE FUNCTION take_and_tell(_message int, _sku int, _quantity int, _at bigint, _delivery int, _once boolean,
                              _refused boolean, _body jsonb, _logged boolean,
                              OUT _result text, OUT _level int, OUT _version int, OUT _again boolean) AS $$
BEGIN
    SELECT * INTO _result, _level, _version, _again
        FROM take_stock(_message, _sku, _quantity, _at, _delivery, _once, _refused);
    IF _result = 'taken' AND NOT _again THEN
        PERFORM tell(_message, 'announced', _body || jsonb_build_object('level', _level, 'version', _version), _logged);
    END IF;
END $$ LANGUAGE plpgsql;

-- `promise`, told as the order that it is.
CREATE FUNCTION promise_and_tell(_message int, _sku int, _quantity int, _body jsonb, _logged boolean,
                                 OUT _promised boolean) AS $$
BEGIN
    _promised := promise(_sku, _quantity);
    IF _promised THEN PERFORM tell(_message, 'taken', _body, _logged); END IF;
END $$ LANGUAGE plpgsql;
