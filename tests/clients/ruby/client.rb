# frozen_string_literal: true

require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'grpc'
require 'json'
require 'tollgate/v1/policy_service_services_pb'

# Calls that are repeated without counting twice.
class Client
  ATTEMPTS = 3 # of Authorize: a client waits for it
  CALL_S = 5 # of one attempt, beside what Authorize may wait for room
  MAX_BACKOFF_S = 5

  CHANNEL = {
    # Each replica gets its share of the calls; the default would send all of them to one.
    'grpc.service_config' => JSON.generate(loadBalancingConfig: [{ round_robin: {} }]),
    # A connection that died silently is found out, and one to a replica that restarts is soon tried again.
    'grpc.keepalive_time_ms' => 30_000,
    'grpc.keepalive_timeout_ms' => 5_000,
    'grpc.initial_reconnect_backoff_ms' => 100,
    'grpc.max_reconnect_backoff_ms' => 2_000
  }.freeze

  # `target`: `127.0.0.1:50051`, or `dns:///tollgate:50051` for all replicas behind a name.
  def initialize(target)
    @policy = Tollgate::V1::PolicyService::Stub.new(target, :this_channel_is_insecure, channel_args: CHANNEL)
  end

  # Asks for a decision. Every attempt has the same `request_id`, so that it reserves once.
  def authorize(request)
    timeout = CALL_S + (request.max_wait&.to_f || 0)
    (1..).each do |attempt|
      return @policy.authorize(request, deadline: Time.now + timeout)
    rescue GRPC::Unavailable, GRPC::DeadlineExceeded => e
      raise if attempt == ATTEMPTS

      sleep(retry_delay(e, attempt))
    end
  end

  # Reports until it is booked. Whatever may have been booked already is booked once: repeating is safe, giving up is not.
  def record(report)
    (1..).each do |attempt|
      return @policy.record_usage(report, deadline: Time.now + CALL_S)
    rescue GRPC::Unavailable, GRPC::DeadlineExceeded, GRPC::Internal, GRPC::Unknown, GRPC::Cancelled => e
      sleep(retry_delay(e, attempt))
    end
  end

  private

  # As `RetryInfo` says; without it, twice as long each time. In both cases a little at random, so that callers spread.
  def retry_delay(error, attempt)
    status = Google::Rpc::Status.decode(error.metadata.fetch('grpc-status-details-bin', ''))
    detail = status.details.find { |any| any.is(Google::Rpc::RetryInfo) }
    delay = detail&.unpack(Google::Rpc::RetryInfo)&.retry_delay&.to_f || [0.1 * 2**(attempt - 1), MAX_BACKOFF_S].min
    delay * (1 + rand / 4)
  end
end
