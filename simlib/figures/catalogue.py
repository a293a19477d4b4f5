"""Every word that a figure or a report shows, in Russian and in English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from simlib.errors import unknown

Language = Literal["ru", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

TEXTS: dict[str, dict[Language, str]] = {
    # architectures and their variants
    "rest": {"ru": "вызовы REST", "en": "REST calls"},
    "message_queue": {"ru": "очередь сообщений", "en": "message queue"},
    "message_queue/reply": {
        "ru": "очередь с ожиданием ответа",
        "en": "queue, reply awaited",
    },
    "outbox": {"ru": "исходящие через базу (outbox)", "en": "transactional outbox"},
    "batch_exchange": {"ru": "обмен файлами по расписанию", "en": "scheduled exchange of files"},
    "service_mesh": {"ru": "сервисная сеть (service mesh)", "en": "service mesh"},
    "cqrs": {"ru": "разделение CQRS", "en": "CQRS"},
    "event_sourcing": {"ru": "порождение событий", "en": "event sourcing"},
    "saga/orchestrated": {"ru": "сага с оркестратором", "en": "orchestrated saga"},
    "saga/choreographed": {"ru": "сага-хореография", "en": "choreographed saga"},
    "streaming": {"ru": "потоковая передача", "en": "streaming"},
    # kinds of message, named as what happens to them
    "stock_update": {"ru": "изменение остатка", "en": "stock update"},
    "order": {"ru": "заказ", "en": "order"},
    "stock_query": {"ru": "запрос остатка", "en": "stock query"},
    # scenarios
    "steady": {"ru": "равномерная нагрузка", "en": "steady load"},
    "burst": {"ru": "всплески", "en": "bursts"},
    "flash_sale": {"ru": "распродажа", "en": "flash sale"},
    "fulfilment": {"ru": "исполнение заказов", "en": "order fulfilment"},
    "crashes": {"ru": "отказы сторон", "en": "crashes of the sides"},
    # axes
    "rate": {"ru": "интенсивность потока, сообщ./с", "en": "offered rate, messages/s"},
    "response_time": {"ru": "время ответа, мс", "en": "response time, ms"},
    "delivery_time": {"ru": "время доставки, мс", "en": "delivery time, ms"},
    "goodput": {"ru": "полезная пропускная способность, сообщ./с", "en": "goodput, messages/s"},
    "backlog": {"ru": "незавершённые сообщения", "en": "unsettled messages"},
    "time": {"ru": "время, с", "en": "time, s"},
    "ratio": {"ru": "отношение к архитектуре «{base}»", "en": "times that of {base}"},
    "predicted_over_measured": {"ru": "предсказано / измерено", "en": "predicted / measured"},
    "sample_ms": {"ru": "в выборке, мс", "en": "samples, ms"},
    "fitted_ms": {"ru": "по распределению, мс", "en": "fitted, ms"},
    "share_below": {"ru": "доля не больше", "en": "share at most"},
    # titles of panels
    "lost": {"ru": "потеряно, сообщ.", "en": "lost, messages"},
    "duplicated": {"ru": "дубликаты, сообщ.", "en": "duplicated, messages"},
    "oversold_units": {"ru": "перепродано, ед.", "en": "oversold, units"},
    "undersold_units": {"ru": "недопродано, ед.", "en": "undersold, units"},
    "read_your_writes_violations": {"ru": "своя запись не видна, запросов", "en": "own write unseen, queries"},
    "stale_read_fraction": {"ru": "устаревшие чтения, %", "en": "stale reads, %"},
    "failed": {"ru": "неудачи, сообщ.", "en": "failed, messages"},
    "half_finished": {"ru": "незавершённые процессы", "en": "processes half finished"},
    "per_second": {"ru": "{rate} сообщ./с", "en": "{rate}/s"},
    "none_in_any_run": {"ru": "ни в одном прогоне", "en": "none in any run"},
    "short:saturation": {"ru": "насыщение", "en": "saturation"},
    "short:response_time_p95.order": {"ru": "заказ:\nвремя ответа, p95", "en": "order:\nresponse time, p95"},
    "short:response_time_p95.stock_query": {
        "ru": "запрос остатка:\nвремя ответа, p95",
        "en": "stock query:\nresponse time, p95",
    },
    "short:response_time_p95.stock_update": {
        "ru": "изменение остатка:\nвремя ответа, p95",
        "en": "stock update:\nresponse time, p95",
    },
    "short:delivery_time_p95.stock_update": {
        "ru": "изменение остатка:\nвремя доставки, p95",
        "en": "stock update:\ndelivery time, p95",
    },
    "short:delivery_time_p95.order": {"ru": "заказ:\nвремя доставки, p95", "en": "order:\ndelivery time, p95"},
    # legends
    "p50": {"ru": "медиана", "en": "median"},
    "p95": {"ru": "95-й процентиль", "en": "95th percentile"},
    "p99": {"ru": "99-й процентиль", "en": "99th percentile"},
    "samples": {"ru": "выборка", "en": "samples"},
    "fitted": {"ru": "подобранное распределение", "en": "fitted distribution"},
    "ideal": {"ru": "обработано всё поступившее", "en": "all that is offered"},
    "overloaded": {"ru": "перегрузка", "en": "overloaded"},
    "trace": {"ru": "те же поступления", "en": "same arrivals"},
    "independent": {"ru": "независимые прогоны", "en": "independent runs"},
    "stated": {"ru": "заявленная точность", "en": "stated accuracy"},
    "one_run": {"ru": "один прогон", "en": "one run"},
    "mean_of_runs": {"ru": "среднее по {runs} прогонам", "en": "mean of {runs} runs"},
    # captions
    "caption:response_time": {
        "ru": "Время ответа в зависимости от интенсивности потока; вверху — доля собственного насыщения",
        "en": "Response time against the offered rate; above, the share of the own saturation",
    },
    "caption:delivery_time": {
        "ru": "Время доставки в зависимости от интенсивности потока; вверху — доля собственного насыщения",
        "en": "Delivery time against the offered rate; above, the share of the own saturation",
    },
    "caption:saturation": {
        "ru": "Полезная пропускная способность в зависимости от интенсивности потока",
        "en": "Goodput against the offered rate",
    },
    "caption:backlog": {"ru": "Число незавершённых сообщений во времени", "en": "Unsettled messages through time"},
    "caption:consistency": {
        "ru": "Устаревшие чтения, перепродажа, неудачи, незавершённые процессы, потери и дубликаты",
        "en": "Stale reads, oversold units, failures, processes half finished, losses and duplicates",
    },
    "caption:differences": {
        "ru": "Времена и пропускная способность по отношению к базовой архитектуре",
        "en": "Times and saturation as multiples of the baseline's",
    },
    "caption:validation": {
        "ru": "Отношение предсказанных процентилей времени к измеренным",
        "en": "Predicted percentiles over measured ones",
    },
    # aspects of a comparison, and what is counted of the programs
    "aspect:performance": {"ru": "производительность", "en": "performance"},
    "aspect:scalability": {"ru": "масштабируемость", "en": "scalability"},
    "aspect:reliability": {"ru": "надёжность доставки", "en": "reliability of delivery"},
    "aspect:consistency": {"ru": "согласованность данных", "en": "consistency"},
    "aspect:processes": {"ru": "сложные бизнес-процессы", "en": "complex business processes"},
    "aspect:integration": {"ru": "простота интеграции", "en": "ease of integration"},
    "aspect:cost": {"ru": "стоимость разработки", "en": "cost of development"},
    "measure:parts": {"ru": "частей системы", "en": "parts to run"},
    "measure:concepts": {"ru": "понятий", "en": "concepts"},
    "measure:settings": {"ru": "настроек", "en": "settings"},
    "measure:failures": {"ru": "видов отказов", "en": "failure modes"},
    "measure:person_months": {"ru": "трудоёмкость по COCOMO, чел.-мес.", "en": "COCOMO, person-months"},
    "measure:cognitive": {"ru": "когнитивная сложность", "en": "cognitive complexity"},
    # conditions, as a sentence begins with them
    "where:steady": {"ru": "при равномерной нагрузке", "en": "under steady load"},
    "where:burst": {"ru": "при нагрузке со всплесками, в среднем", "en": "under bursts, on average"},
    "where:flash_sale": {"ru": "при распродаже, в среднем", "en": "in a flash sale, on average"},
    "where:crashes": {"ru": "при отказах сторон и потоке", "en": "where the sides crash, at"},
    "where:fulfilment": {
        "ru": "при исполнении заказов несколькими службами и потоке",
        "en": "where orders go through several services",
    },
    # metrics, as the subject of a sentence
    "metric:saturation": {"ru": "пропускная способность при насыщении", "en": "the saturation throughput"},
    "metric:response_time_p95.order": {
        "ru": "95-й процентиль времени ответа на заказ",
        "en": "the 95th percentile of the response time of orders",
    },
    "metric:response_time_p95.stock_query": {
        "ru": "95-й процентиль времени ответа на запрос остатка",
        "en": "the 95th percentile of the response time of stock queries",
    },
    "metric:response_time_p95.stock_update": {
        "ru": "95-й процентиль времени ответа на изменение остатка",
        "en": "the 95th percentile of the response time of stock updates",
    },
    "metric:delivery_time_p95.stock_update": {
        "ru": "95-й процентиль времени доставки изменения остатка",
        "en": "the 95th percentile of the delivery time of stock updates",
    },
    "metric:delivery_time_p95.order": {
        "ru": "95-й процентиль времени доставки заказа",
        "en": "the 95th percentile of the delivery time of orders",
    },
    "metric:failed": {
        "ru": "число сообщений, не удавшихся за прогон",
        "en": "the number of messages that fail in a run",
    },
    "metric:half_finished": {
        "ru": "число незавершённых процессов за прогон",
        "en": "the number of processes left half finished in a run",
    },
    "metric:undersold_units": {
        "ru": "число недопроданных единиц за прогон",
        "en": "the number of units undersold in a run",
    },
    "metric:read_your_writes_violations": {
        "ru": "число запросов, не увидевших собственного заказа, за прогон",
        "en": "the number of queries in a run that did not see the own order",
    },
    "metric:lost": {"ru": "число потерянных сообщений за прогон", "en": "the number of messages lost in a run"},
    "metric:duplicated": {
        "ru": "число сообщений, подействовавших повторно, за прогон",
        "en": "the number of messages duplicated in a run",
    },
    "metric:oversold_units": {
        "ru": "число перепроданных единиц за прогон",
        "en": "the number of units oversold in a run",
    },
    "metric:stale_read_fraction": {"ru": "доля устаревших чтений", "en": "the share of stale reads"},
    # what is validated
    "of:response_time.order": {"ru": "ответ на заказ", "en": "response to orders"},
    "of:response_time.stock_query": {"ru": "ответ на запрос остатка", "en": "response to stock queries"},
    "of:response_time.stock_update": {"ru": "ответ на изменение остатка", "en": "response to stock updates"},
    "of:delivery_time.stock_update": {"ru": "доставка изменения остатка", "en": "delivery of stock updates"},
    "of:delivery_time.order": {"ru": "доставка заказа", "en": "delivery of orders"},
    # parameters
    "provenance:measured": {"ru": "измерено", "en": "measured"},
    "provenance:published": {"ru": "опубликовано", "en": "published"},
    "provenance:measured elsewhere": {"ru": "измерено в другом месте", "en": "measured elsewhere"},
    "provenance:assumed": {"ru": "принято", "en": "assumed"},
    "family:constant": {"ru": "постоянная", "en": "constant"},
    "family:exponential": {"ru": "показательное", "en": "exponential"},
    "family:uniform": {"ru": "равномерное", "en": "uniform"},
    "family:lognormal": {"ru": "логнормальное", "en": "lognormal"},
    "family:weibull": {"ru": "Вейбулла", "en": "Weibull"},
    "family:erlang": {"ru": "Эрланга", "en": "Erlang"},
    "family:hyperexponential": {"ru": "гиперэкспоненциальное", "en": "hyperexponential"},
    "family:quantiles": {"ru": "по измеренным квантилям", "en": "measured quantiles"},
    "parameter:edge": {
        "ru": "путь между клиентом и вызываемой стороной, в одну сторону",
        "en": "between a caller and the side it calls, each way",
    },
    "parameter:cores": {
        "ru": "ядер машины, общих для сторон и базы",
        "en": "cores that both sides and the database share",
    },
    "parameter:network": {"ru": "путь между сторонами, в одну сторону", "en": "between the two sides, each way"},
    "parameter:http_server": {
        "ru": "процессорное время приёма запроса и столько же ответа",
        "en": "CPU to take in a request, and as much to answer",
    },
    "parameter:http_client": {
        "ru": "процессорное время отправки вызова и столько же приёма ответа",
        "en": "CPU to send a call, and as much to take its answer",
    },
    "parameter:database_client": {
        "ru": "процессорное время обращения к базе и столько же после него",
        "en": "CPU to ask the database, and as much after",
    },
    "parameter:commit": {
        "ru": "запись журнала базы при фиксации, по одной",
        "en": "flush of the database's log at a commit, one at a time",
    },
    "parameter:read": {
        "ru": "работа сервера базы за одну транзакцию",
        "en": "the database server's work for a transaction",
    },
    "parameter:database_connections": {
        "ru": "соединений каждой стороны с её базой",
        "en": "connections of each side to its database",
    },
    "parameter:event_loop": {
        "ru": "выполняются ли задачи службы до своего ожидания, как в цикле событий, или каждая часть работы ждёт в очереди",
        "en": "whether a service's tasks run until they wait, as in an event loop, or each piece of work waits in line",
    },
    "parameter:connections": {
        "ru": "соединений каждой стороны со службой другой",
        "en": "connections of each side to the other's service",
    },
    "parameter:timeout": {
        "ru": "время, через которое вызов прекращается",
        "en": "after which a caller abandons a call",
    },
    "parameter:retries": {"ru": "повторных попыток вызова", "en": "further attempts of a call"},
    "parameter:backoff": {
        "ru": "пауза перед первым повтором, далее удваивается",
        "en": "before the first retry, doubled each time",
    },
    "parameter:jitter": {"ru": "пауза случайна", "en": "whether the backoff is random"},
    "parameter:idempotency": {"ru": "ключ идемпотентности", "en": "idempotency key"},
    "parameter:broker": {"ru": "брокер", "en": "broker"},
    "parameter:uplink": {
        "ru": "путь между стороной и брокером, в одну сторону",
        "en": "between a side and the broker, each way",
    },
    "parameter:store": {"ru": "запись сообщения брокером на диск", "en": "the broker's write of a message to disk"},
    "parameter:dispatch": {
        "ru": "время от подтверждения сообщения до его выдачи брокером",
        "en": "from when a message is confirmed until the broker hands it out",
    },
    "parameter:publish_client": {
        "ru": "процессорное время публикации и столько же приёма подтверждения",
        "en": "CPU to publish, and as much to take the confirm",
    },
    "parameter:consume_client": {
        "ru": "процессорное время приёма доставки и столько же подтверждения",
        "en": "CPU to take a delivery, and as much to acknowledge it",
    },
    "parameter:consumers": {"ru": "обработчиков каждой очереди", "en": "consumers of each queue"},
    "parameter:prefetch": {
        "ru": "неподтверждённых доставок очереди одновременно",
        "en": "unacknowledged deliveries of a queue at once",
    },
    "parameter:confirm": {"ru": "публикация ждёт подтверждения", "en": "whether a publisher waits for the confirm"},
    "parameter:confirm_timeout": {"ru": "время ожидания подтверждения", "en": "how long a confirm is waited for"},
    "parameter:reconnect": {
        "ru": "перерыв между попытками соединиться с брокером",
        "en": "between tries to connect to a broker that is down",
    },
    "parameter:confirm_retries": {
        "ru": "повторных публикаций без подтверждения",
        "en": "further publications without a confirm",
    },
    "parameter:deduplication": {
        "ru": "время, в которое брокер отбрасывает повтор",
        "en": "within which the broker drops a duplicate",
    },
    "parameter:manual_ack": {
        "ru": "подтверждение приёма после действия",
        "en": "whether a delivery is acknowledged after its effect",
    },
    "parameter:ack_wait": {
        "ru": "время до повторной доставки без подтверждения",
        "en": "until delivery again without acknowledgement",
    },
    "parameter:redelivery_delay": {
        "ru": "пауза перед повторной доставкой после отказа",
        "en": "before a refused delivery is delivered again",
    },
    "parameter:max_deliveries": {
        "ru": "доставок, после которых сообщение откладывается",
        "en": "deliveries after which a message is parked",
    },
    "parameter:park": {"ru": "отложенные сообщения сохраняются", "en": "whether parked messages are kept"},
    "parameter:idempotent_receiver": {"ru": "идемпотентный получатель", "en": "idempotent receiver"},
    "parameter:write_if_newer": {
        "ru": "копия не принимает устаревшую версию",
        "en": "whether the copy refuses an older version",
    },
    "parameter:publisher": {"ru": "кто публикует", "en": "what publishes"},
    "parameter:batch_size": {"ru": "строк за один приём", "en": "rows that a relay takes at once"},
    "parameter:insert": {"ru": "запись строки исходящих в базу", "en": "the database's work to write a row of the outbox"},
    "parameter:read_your_writes": {"ru": "чем виден свой заказ", "en": "what shows customers their own orders"},
    "parameter:replicas": {"ru": "реплики модели чтения", "en": "replicas of the read model"},
    "parameter:replication": {"ru": "от реплики к следующей", "en": "from one replica to the next"},
    "parameter:patience": {"ru": "терпение запроса", "en": "patience of a query for a version"},
    "parameter:affinity": {"ru": "доля запросов к своей реплике", "en": "share of queries to the own replica"},
    "parameter:poll_interval": {"ru": "период опроса", "en": "between two polls of a relay"},
    "parameter:per_row": {
        "ru": "работа базы на каждую строку опроса и отметки",
        "en": "the database's work for each row that is found, and marked",
    },
    "parameter:tail": {"ru": "от фиксации до чтения журнала базы", "en": "from a commit until the log's reader has it"},
    "parameter:sharing": {"ru": "как делят изменения потребители", "en": "how consumers share the changes"},
    "parameter:orders_first": {"ru": "изменения от заказов вперёд", "en": "changes by orders first"},
    "parameter:at_limit": {"ru": "что делает полная очередь", "en": "what a full queue does"},
    "parameter:unbound": {"ru": "очередь, которой нет", "en": "queue that is not there"},
    "parameter:max_length": {"ru": "предел длины очереди", "en": "messages that may wait"},
    "parameter:expire": {"ru": "срок жизни сообщений ограничен", "en": "messages expire"},
    "parameter:time_to_live": {"ru": "срок жизни сообщения", "en": "time to live"},
    "parameter:nodes": {"ru": "узлы брокера", "en": "nodes of the broker"},
    "parameter:between_nodes": {"ru": "между узлами брокера", "en": "between two nodes"},
    "parameter:answered_on": {"ru": "чем отвечают на заказ", "en": "what answers an order"},
    "parameter:retry_budget": {
        "ru": "повторов, оплаченных одним вызовом",
        "en": "further attempts that a call pays for",
    },
    "parameter:hedge_after": {"ru": "второй запрос без ответа через", "en": "after which a caller asks once more"},
    "parameter:processes": {"ru": "процессов каждой стороны", "en": "processes of each side"},
    "parameter:balancing": {"ru": "выбор процесса", "en": "how a caller chooses among them"},
    "parameter:backlog": {"ru": "запросов в работе, не более", "en": "requests that a process has in hand at most"},
    "parameter:breaker": {"ru": "отказов подряд до размыкания", "en": "failures in a row that open the breaker"},
    "parameter:breaker_lasts": {"ru": "размыкание длится", "en": "how long the breaker stays open"},
    "parameter:loopback": {"ru": "между процессом и его прокси", "en": "between a process and its sidecar"},
    "parameter:proxy": {"ru": "программа прокси", "en": "the sidecars' program"},
    "parameter:hop": {"ru": "работа прокси на сообщение", "en": "CPU of a sidecar for a message"},
    "parameter:mtls": {"ru": "шифрование между прокси", "en": "encryption between sidecars"},
    "parameter:tls": {"ru": "работа прокси на шифрование", "en": "CPU of a sidecar to encrypt a message"},
    "parameter:workers": {"ru": "потоков прокси", "en": "threads of a sidecar"},
    "parameter:proxy_timeout": {"ru": "прокси ждёт ответа", "en": "after which a sidecar abandons a try"},
    "parameter:proxy_retries": {"ru": "повторов прокси", "en": "further tries of a sidecar"},
    "parameter:proxy_backoff": {"ru": "пауза прокси перед повтором", "en": "before a sidecar's first retry"},
    "parameter:proxy_budget": {
        "ru": "повторов прокси, оплаченных одним вызовом",
        "en": "further tries that a call pays for",
    },
    "parameter:proxy_connections": {
        "ru": "соединений прокси с каждым процессом",
        "en": "connections of a sidecar to each process",
    },
    "parameter:proxy_pending": {"ru": "ждущих соединения, не более", "en": "calls that wait for one at most"},
    "parameter:ejection": {"ru": "отказов подряд до исключения процесса", "en": "failures in a row that eject a process"},
    "parameter:ejection_lasts": {"ru": "исключение длится", "en": "how long a process stays ejected"},
    "parameter:max_ejected": {"ru": "доля исключённых, не более", "en": "share of processes ejected at most"},
    "parameter:push_interval": {"ru": "между обновлениями настроек", "en": "between two configurations"},
    "parameter:push": {"ru": "работа прокси на обновление", "en": "CPU to take in a configuration"},
    "parameter:exchange": {"ru": "что выгружается в магазин", "en": "what a file to the shop holds"},
    "parameter:interval": {"ru": "между запусками обмена", "en": "between two runs of the exchange"},
    "parameter:runs": {"ru": "одновременных запусков в одну сторону", "en": "runs of one direction at once"},
    "parameter:file": {"ru": "работа процессора на файл", "en": "CPU to make or read a file"},
    "parameter:record": {"ru": "работа процессора на запись файла", "en": "CPU to write or read a record of a file"},
    "parameter:registration": {"ru": "регистрация изменения в базе", "en": "the database's work to register a change"},
    "parameter:coalesce": {"ru": "из изменений товара выгружается последнее", "en": "of the changes of a SKU only the last is sent"},
    "parameter:transaction": {"ru": "что фиксируется и повторяется целиком", "en": "what is committed, and fails, as a whole"},
    "parameter:retry_after": {"ru": "пауза перед повторной загрузкой файла", "en": "before a file that failed is read again"},
    "parameter:partitions": {"ru": "разделов журнала", "en": "partitions of each topic"},
    "parameter:batch_records": {"ru": "записей в пачке, не больше", "en": "records of a batch at most"},
    "parameter:linger": {"ru": "ожидание наполнения пачки", "en": "for which a batch waits to be filled"},
    "parameter:in_flight": {"ru": "пачек без подтверждения одновременно", "en": "batches not yet known to be written"},
    "parameter:write_batch": {"ru": "запись пачки в журнал", "en": "the broker's work to append a batch"},
    "parameter:per_record": {"ru": "и на каждую запись пачки", "en": "and more of it for each record"},
    "parameter:broker_work": {
        "ru": "процессорное время брокера на пачку", "en": "processor time that a batch takes the broker"
    },  # fmt: skip
    "parameter:acks": {"ru": "у кого есть пачка до подтверждения", "en": "who has a batch before it is confirmed"},
    "parameter:replicate": {"ru": "до копии у достаточного числа узлов", "en": "until enough followers have a batch"},
    "parameter:fetch": {
        "ru": "ожидание новой записи читателем журнала",
        "en": "until a member that waits has a record that was written",
    },
    "parameter:followers": {"ru": "число реплик-последователей", "en": "brokers that fetch from the leader"},
    "parameter:min_insync_replicas": {"ru": "наименьшее число синхронных реплик", "en": "the fewest replicas in sync"},
    "parameter:replica_lag": {"ru": "допустимое отставание реплики", "en": "until a follower is out of sync"},
    "parameter:flush": {"ru": "сброс пачки на диск", "en": "the broker's flush of a batch to disk"},
    "parameter:flush_every": {"ru": "период сброса на диск", "en": "between two flushes of the page cache"},
    "parameter:retry_backoff": {"ru": "пауза перед повторной публикацией", "en": "before a message is published again"},
    "parameter:idempotent_producer": {"ru": "брокер отбрасывает повторы", "en": "whether the broker drops what it has"},
    "parameter:members": {"ru": "участников группы потребителей", "en": "members of each consumer group"},
    "parameter:partition_assignment_strategy": {"ru": "протокол ребалансировки группы", "en": "how a group rebalances"},
    "parameter:rebalance": {"ru": "ребалансировка группы", "en": "until members know their partitions anew"},
    "parameter:max_poll_records": {"ru": "записей за один опрос", "en": "records that a member takes at once"},
    "parameter:max_poll_interval": {"ru": "предел времени между опросами", "en": "until a slow member is one no longer"},
    "parameter:guarantee": {"ru": "когда фиксируется позиция", "en": "when a position is committed"},
    "parameter:auto_commit_interval": {"ru": "период фиксации позиции", "en": "between two commits by the clock"},
    "parameter:window": {"ru": "окно подсчёта заказов", "en": "window in which orders are counted"},
    "parameter:commit_interval": {"ru": "период фиксации окон", "en": "between two commits of windows"},
    "parameter:commit_position": {"ru": "запись позиции группы", "en": "until a group's position is written"},
    "parameter:state": {"ru": "где хранится копия магазина", "en": "where the shop keeps its copy"},
    "parameter:handler_retries": {"ru": "повторов записи обработчиком", "en": "further tries of a record by its handler"},
    "parameter:handler_backoff": {"ru": "пауза перед повтором записи", "en": "before a record is tried again"},
    "parameter:recording": {
        "ru": "процессор на сборку потока событий и на запись события",
        "en": "CPU to make a stream of its events, and as much to record one",
    },
    "parameter:append": {"ru": "запись события в базу", "en": "the database's work to write an event"},
    "parameter:per_event": {
        "ru": "работа на каждое прочитанное событие",
        "en": "the work for each event that is read, and applied",
    },
    "parameter:snapshot_every": {"ru": "событий между снимками", "en": "events between two snapshots"},
    "parameter:snapshot": {"ru": "запись снимка в базу", "en": "the database's work to write a snapshot"},
    "parameter:concurrency": {"ru": "что хранит поток от гонок", "en": "what keeps a stream from races"},
    "parameter:conflict_retries": {"ru": "повторов после конфликта версий", "en": "further tries after a conflict of versions"},
    "parameter:conflict_backoff": {
        "ru": "пауза перед первым повтором после конфликта",
        "en": "before the first try after a conflict",
    },
    "parameter:event_sourcing": {"ru": "хранение событий", "en": "events kept"},
    "parameter:group_commit": {"ru": "общая запись на диск", "en": "one flush for all who wait"},
    "parameter:subscription_client": {
        "ru": "процессор на приём события подписки",
        "en": "CPU to take an event from the subscription",
    },
    "parameter:session_timeout": {
        "ru": "обрыв подписки замечается через",
        "en": "until it is noticed that the subscription is closed",
    },
    "parameter:event_retries": {"ru": "повторов события в проекции", "en": "further tries of an event by the projection"},
    "parameter:event_backoff": {"ru": "пауза перед повтором события", "en": "before an event is tried again"},
    "parameter:set_aside": {
        "ru": "непосильное событие откладывается",
        "en": "whether an event that fails is set aside",
    },
    "parameter:rebuild_every": {"ru": "период перестройки проекции", "en": "between two rebuilds of the projection"},
    "parameter:compensation": {"ru": "отмена сделанных шагов", "en": "whether steps are undone"},
    "parameter:semantic_locks": {"ru": "смысловые блокировки товара", "en": "semantic locks of a SKU"},
    "parameter:durable_state": {"ru": "состояние процессов переживает сбой", "en": "whether processes outlive a crash"},
    "parameter:answer_timeout": {"ru": "сколько ждёт покупатель", "en": "how long a customer waits"},
    "parameter:step_timeout": {"ru": "сколько ждут ответа на шаг", "en": "how long a step's answer is waited for"},
    "parameter:undo_retries": {"ru": "повторных просьб об отмене шага", "en": "further requests to undo a step"},
    "parameter:deadline": {"ru": "срок процесса", "en": "deadline of a process"},
    # the explorer
    "explorer:title": {"ru": "Что будет, если изменить параметр?", "en": "What happens when a parameter moves?"},
    "explorer:seed": {"ru": "зерно случайных чисел", "en": "seed"},
    "explorer:messages": {"ru": "сообщений в прогоне", "en": "messages of a run"},
    "explorer:response": {"ru": "Распределение времени ответа", "en": "Distribution of the response time"},
    "explorer:delivery": {"ru": "Распределение времени доставки", "en": "Distribution of the delivery time"},
    "explorer:loads": {
        "ru": "Время в зависимости от потока (без перегруженных точек)",
        "en": "Times against the offered rate (none where overloaded)",
    },
    "explorer:utilisation": {"ru": "Загрузка ресурсов", "en": "Utilisation of the pools"},
    "explorer:run": {
        "ru": "{messages} сообщений, зерно {seed}, параметры {parameters}",
        "en": "{messages} messages, seed {seed}, parameters {parameters}",
    },
    "explorer:draft": {
        "ru": "{messages} сообщений для начала, зерно {seed}, параметры {parameters} …",
        "en": "{messages} messages to begin with, seed {seed}, parameters {parameters} …",
    },
    "explorer:overloaded": {
        "ru": "перегрузка: времена зависят от длины прогона, процентилей нет",
        "en": "overloaded: times depend on the length of the run, there are no percentiles",
    },
    "done_within": {"ru": "доля сообщений, %", "en": "share of messages, %"},
    "p95_ms": {"ru": "95-й процентиль, мс", "en": "95th percentile, ms"},
    "utilisation": {"ru": "занято времени, %", "en": "busy, % of the time"},
    "time_ms": {"ru": "время, мс", "en": "time, ms"},
    "in_this_run": {"ru": "за этот прогон", "en": "in this run"},
    "line:response_time": {"ru": "время ответа", "en": "response time"},
    "line:delivery_time": {"ru": "время доставки", "en": "delivery time"},
    "reordered": {"ru": "не по порядку, сообщ.", "en": "reordered, messages"},
    "dead_lettered": {"ru": "отложено, сообщ.", "en": "dead-lettered, messages"},
    "defaults": {"ru": "значения по умолчанию", "en": "defaults"},
    "range": {"ru": "от {low} до {high}", "en": "{low} to {high}"},
    "default": {"ru": "по умолчанию {value} ({provenance})", "en": "default {value} ({provenance})"},
    "mean_of": {
        "ru": "среднее; распределение: {family}, форма не меняется",
        "en": "the mean; distribution: {family}, its shape stays",
    },
    "unit:ms": {"ru": "мс", "en": "ms"},
    "unit:s": {"ru": "с", "en": "s"},
    "yes": {"ru": "да", "en": "yes"},
    "no": {"ru": "нет", "en": "no"},
    # footers
    "calibrated": {"ru": "калибровка: {files}", "en": "calibration: {files}"},
    "assumed": {"ru": "параметры приняты, не измерены", "en": "parameters assumed, not measured"},
    "origin": {
        "ru": "95 %-е доверительные интервалы, прогонов в точке: {runs}; зерно {seed}, схема {draws}, {version}",
        "en": "95 % intervals over {runs} runs a point; seed {seed}, draws {draws}, {version}",
    },
}


def text(name: str, language: Language, **values: object) -> str:
    """The words for a name, with values put in; raises KeyError for an unknown name, BadInput for a language."""
    if language not in LANGUAGES:
        raise unknown("language", language, LANGUAGES)
    return TEXTS[name][language].format(**values)


def twin_title(row: Mapping[str, Any], language: Language) -> str:
    """The title of a validation row's architecture, with its broker."""
    return title(row["architecture"], language) + (f" ({row['broker']})" if row["broker"] else "")


def title(candidate: str, language: Language) -> str:
    """An architecture or variant by its title, or by its name where the catalogue has none (as of a user's own)."""
    return text(candidate, language) if candidate in TEXTS else candidate
