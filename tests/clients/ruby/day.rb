# frozen_string_literal: true

# A gateway's day against a Tollgate server, with stubs made from the contract.
#
#     ruby -I STUBS day.rb HOST:PORT
#
# The server runs with ../policy.toml and has not seen the team `ruby` before. Ends with 1 at the first answer that is not as it must
# be.

require_relative 'client'

V1 = Tollgate::V1

def check(what, came, expected)
  abort("ruby: #{what}: expected #{expected.inspect}, came #{came.inspect}") unless came == expected
  puts "ruby: #{what} is #{came.inspect}"
end

def billionths(money)
  check('the currency', money.currency_code, 'USD')
  money.units * 1_000_000_000 + money.nanos
end

def request(id, **more)
  V1::AuthorizeRequest.new(
    team: 'ruby', request_id: id, model: 'openai/gpt-oss-120b', operation: :OPERATION_CHAT_COMPLETION,
    input_tokens: 4_641, max_output_tokens: 2_048, **more
  )
end

# Groq's own example, asked for: the worst case is reserved, once.
def authorized(client)
  waits = Google::Protobuf::Duration.new(seconds: 1)
  answer = client.authorize(request('day-1', max_wait: waits))
  check('the decision', answer.decision, :DECISION_ALLOWED)
  check('the reserved cost', billionths(answer.reserved_cost), 1_924_950)
  again = client.authorize(request('day-1', max_wait: waits))
  check("the repeated answer's reservation", again.reservation_id, answer.reservation_id)
  begin
    client.authorize(request('day-1', user: 'another'))
    abort('ruby: the id of another request was taken')
  rescue GRPC::AlreadyExists => e
    check('the error', e.code, GRPC::Core::StatusCodes::ALREADY_EXISTS)
  end
  answer.reservation_id
end

# The use of Groq's example: booked to the billionth of a dollar, once.
def recorded(client, reservation)
  usage = V1::Usage.new(input_tokens: 4_641, cached_input_tokens: 4_608, output_tokens: 1_817, reasoning_tokens: 1_024)
  report = V1::RecordUsageRequest.new(reservation_id: reservation, outcome: :OUTCOME_COMPLETED, usage: usage)
  check('the cost', billionths(client.record(report).cost), 1_440_750)
  again = client.record(report)
  check('recorded before', again.already_recorded, true)
  check("the team's spend", billionths(again.team_spend.spent), 1_440_750)
end

# What the rest of the budget cannot pay for.
def denied(client)
  answer = client.authorize(request('day-2'))
  check('the decision', answer.decision, :DECISION_DENIED)
  check('the reasons', answer.violations.map(&:reason), [:REASON_TEAM_BUDGET_EXHAUSTED])
end

# A server that has no time twice gets the same request once more.
class Busy < V1::PolicyService::Service
  attr_reader :asked

  def initialize
    super
    @asked = []
  end

  def authorize(request, _call)
    @asked << request.request_id
    return V1::AuthorizeResponse.new(decision: :DECISION_ALLOWED) if @asked.size == 3

    delay = Google::Rpc::RetryInfo.new(retry_delay: Google::Protobuf::Duration.new(nanos: 400_000_000))
    status = Google::Rpc::Status.new(code: 14, details: [Google::Protobuf::Any.pack(delay)])
    raise GRPC::Unavailable.new('busy', 'grpc-status-details-bin' => Google::Rpc::Status.encode(status))
  end
end

def unavailable
  busy = Busy.new
  server = GRPC::RpcServer.new(pool_size: 1)
  port = server.add_http2_port('127.0.0.1:0', :this_port_is_insecure)
  server.handle(busy)
  serving = Thread.new { server.run }
  server.wait_till_running
  from = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  Client.new("127.0.0.1:#{port}").authorize(request('busy'))
  check('waited as RetryInfo says', Process.clock_gettime(Process::CLOCK_MONOTONIC) - from >= 0.8, true)
  check('the ids', busy.asked, %w[busy busy busy])
ensure
  server.stop
  serving.join
end

abort('usage: ruby day.rb HOST:PORT') unless ARGV.size == 1
client = Client.new(ARGV[0])
recorded(client, authorized(client))
denied(client)
unavailable
